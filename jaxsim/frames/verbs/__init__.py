"""What a user calls, one verb in each file. `jaxsim` exports the verbs; of the other folders `estimators` alone imports
them."""
