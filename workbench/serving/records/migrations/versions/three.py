"""Who writes notes which of its transactions is there, so that none is written twice where the database was lost meanwhile."""

import sqlalchemy as sa
from alembic import op

revision = "3"
down_revision = "2"


def upgrade() -> None:
    """Makes the table of writers."""
    op.create_table(
        "writers",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("batch", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )
