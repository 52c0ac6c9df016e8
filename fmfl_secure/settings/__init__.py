"""Settings files: what they may say, read strictly, each value within its bounds."""
