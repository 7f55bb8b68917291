"""Where the tests' own repository is."""

from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[1]
