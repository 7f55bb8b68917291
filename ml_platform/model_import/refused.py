"""The one error of an import: nothing was registered, and the message says what to do."""


class ImportRefused(ValueError):
    """A model that cannot be imported: what was wanted, what was found, what to do next."""
