"""What does an operator of django-cq see and press, inside the Django admin?"""
