def differing_figures(bt, pf):
    return None
