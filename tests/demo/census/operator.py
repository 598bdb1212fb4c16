"""Who may operate the demo?"""

from django.contrib.auth import get_user_model

# Known to everybody: the demo listens on the loopback interface only.
OPERATOR_NAME = "operator"
OPERATOR_PASSWORD = "operator"


def ensure_operator() -> None:
    """Create the operator unless it exists; one that does keeps its password."""
    users = get_user_model().objects
    if not users.filter(username=OPERATOR_NAME).exists():
        users.create_superuser(username=OPERATOR_NAME, password=OPERATOR_PASSWORD)
