"""A delivery that arrived damaged: the parenthesis in total() is never closed."""


def total(prices):
    return round(sum(prices, 2)
