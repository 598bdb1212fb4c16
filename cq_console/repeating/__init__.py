"""How are repeating tasks listed, edited, previewed and run?"""

from .admin import RepeatingTaskAdmin

__all__ = ["RepeatingTaskAdmin"]
