"""Attribution: a relevance for every input feature."""

from whybox.attribution import backprop as backprop
