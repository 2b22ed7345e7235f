"""DeepLIFT's part of the engine: two runs in one, and multipliers in the place of derivatives."""
