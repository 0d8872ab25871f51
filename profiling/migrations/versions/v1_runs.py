"""The table of runs: each record whole, beside the columns it is found by."""

import sqlalchemy as sa
from alembic import op

revision = "v1"
down_revision = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "attnscope_runs",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("created", sa.Text, nullable=False),
        sa.Column("model_title", sa.Text, nullable=False),
        sa.Column("model_source", sa.Text, nullable=False),
        sa.Column("model_revision", sa.Text, nullable=True),
        sa.Column("config_hash", sa.Text, nullable=False),
        sa.Column("backend", sa.Text, nullable=False),
        sa.Column("phase", sa.Text, nullable=False),
        sa.Column("batch", sa.BigInteger, nullable=False),
        sa.Column("length", sa.BigInteger, nullable=False),
        sa.Column("dtype", sa.Text, nullable=False),
        sa.Column("device", sa.Text, nullable=False),
        sa.Column("device_name", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("median_s", sa.Double, nullable=True),
        sa.Column("p10_s", sa.Double, nullable=True),
        sa.Column("p90_s", sa.Double, nullable=True),
        sa.Column("tokens_per_s", sa.Double, nullable=True),
        sa.Column("peak_bytes", sa.Double, nullable=True),
        sa.Column("kernel", sa.Text, nullable=False),
        sa.Column("flags", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("imported_from", sa.Text, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
    )
    op.create_index("attnscope_runs_created", "attnscope_runs", ["created"])
