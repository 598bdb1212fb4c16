"""What does a project that uses django-cq look like?"""
