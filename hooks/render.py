"""Renders the template of a checkout with answers that were given before, into a folder.

    python hooks/render.py CHECKOUT SOURCE OUTPUT < answers.json

SOURCE is the path or URL that the checkout was cloned from, by which the engine is pinned; the answers are those of a
project's `.template.json`. A question that was not asked then gets its default.
"""

import json
import sys
from pathlib import Path

from cookiecutter.generate import generate_context, generate_files
from cookiecutter.prompt import prompt_for_config


def render(repository: Path, source: str, answers: "dict[str, str]", output: Path) -> Path:
    """Return the folder of the new project in `output`, a git repository with one commit."""
    context = generate_context(str(repository / "cookiecutter.json"), extra_context=answers)
    context["cookiecutter"] = {
        **prompt_for_config(context, no_input=True),
        "_template": source,
        "_repo_dir": str(repository),
        "_output_dir": str(output),
    }
    return Path(generate_files(str(repository), context, output_dir=str(output)))


if __name__ == "__main__":
    render(Path(sys.argv[1]), sys.argv[2], json.load(sys.stdin), Path(sys.argv[3]))
