"""What the verbs that judge a policy share: splits of time, prices changed on purpose, policies that note what they
see.

`verbs` imports from here.
"""
