"""One file or folder per outside system, each the only door to its framework. They translate; they decide nothing."""
