"""Rewards of rollouts and the judge behind them."""
