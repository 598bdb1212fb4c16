"""What Python source code is installed on this machine?"""
