"""Attribution: a relevance for every input feature."""
