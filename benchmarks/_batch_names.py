"""What the orders of the benchmark of batch scoring are called; it imports nothing that would be measured."""

NUMBERS = 22  # inputs
LOOKED_UP = {"shop": 1_000, "customer": 20_000, "product": 3_000}  # view by its key → entities; 6 features each
FEATURES = 6
CHANNELS = ("web", "phone", "store", "app", "mail")
MODEL = "orders"
JOINED = "orders_joined"  # the same, of rows that have the looked-up features already


def feature_names() -> list[str]:
    """Columns of the matrix: a category, the numbers of a row, and those looked up."""
    looked_up = [f"of_{key}__f{number}" for key in LOOKED_UP for number in range(FEATURES)]
    return ["channel", *(f"n{number}" for number in range(NUMBERS)), *looked_up]
