"""The GPUs: are all of them there, at full speed, cool, and sharing the work fairly?"""
