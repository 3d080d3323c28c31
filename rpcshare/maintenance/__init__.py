"""What operators do with a whole store: check it, back it up, move it, bring an older one in.

Everything here works on the store itself, whether servers are running on it or not.
"""
