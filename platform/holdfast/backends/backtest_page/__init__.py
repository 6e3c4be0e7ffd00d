"""Pages of backtests: one HTML file each, without scripts and without anything from outside, with its figure as inline SVG."""

from holdfast.backends.backtest_page.comparison import comparison_page, write_comparison
from holdfast.backends.backtest_page.replay import figure, page, write_page

__all__ = ["comparison_page", "figure", "page", "write_comparison", "write_page"]
