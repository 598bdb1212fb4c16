"""How fast is it, beside others, on this machine?"""
