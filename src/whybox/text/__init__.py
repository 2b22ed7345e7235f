"""Text: which tokens a classifier's or a language model's answer comes from."""

from whybox.text.asking import Question as Question
from whybox.text.asking import ask as ask
from whybox.text.asking import tokens as tokens
