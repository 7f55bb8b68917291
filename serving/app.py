"""The app that serves this project's models; routes and middleware of your own go here.

"Add routes, middleware and hooks" in the documentation shows how.
"""

from ml_platform.serving import create_app

app = create_app()
