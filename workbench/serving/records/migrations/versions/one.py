"""The first tables. Records that are new are made as `tables` has them."""

revision = "1"
down_revision = None


def upgrade() -> None:
    """Changes nothing."""
