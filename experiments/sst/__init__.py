"""An LSTM and a text CNN on the Stanford Sentiment Treebank: do words get the sign that they should have?"""
