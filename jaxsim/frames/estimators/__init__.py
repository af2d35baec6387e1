"""Policies as estimators of scikit-learn and skfolio, which are optional: `jaxsim` imports a module here when its
estimator is first asked for.
"""
