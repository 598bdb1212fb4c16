"""How quick is the console when there is much to see, and others look at it as well?"""
