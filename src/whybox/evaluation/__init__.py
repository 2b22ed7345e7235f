"""Evaluation: should you believe the explanation?"""
