"""The app that serves this project's models. Routes and middleware of your own go here, see docs/serving.md."""

from ml_platform.serving.app import create_app

app = create_app()
