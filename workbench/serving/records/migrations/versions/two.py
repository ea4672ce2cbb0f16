"""Another vote replaces the one before, and the conversations of a person are found without reading all."""

from alembic import op

revision = "2"
down_revision = "1"


def upgrade() -> None:
    """Keeps the last vote on each request."""
    op.execute("DELETE FROM votes WHERE number NOT IN (SELECT max(number) FROM votes GROUP BY request)")
    op.drop_index("votes_by_request", "votes")
    op.create_index("votes_by_request", "votes", ["request"], unique=True)
    op.create_index("conversations_by_owner", "conversations", ["user", "changed"])
