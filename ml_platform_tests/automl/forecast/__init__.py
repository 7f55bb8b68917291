"""Forecasts: periods, features point in time, backtest, adoption."""
