"""The limit of this CPU, to be measured against, unchanged (it may be copied into benchmarks/): fused threshold-rebalancing kernels in plain Numba (float64).

Job: open, close [T,N]; K thresholds; constant target weights w[N]; proportional fees; shared cash.
Out: value [T,K] (valued at close), order count [K] (filled orders), rebalance count [K].
Semantics: ../SEMANTICS.md for direction Both, lock_cash False, constant targets, finite prices, with its snapping. Verified equal
to vectorbt's from_order_func: value series to 4e-16, order counts exactly. Needs numba.

  lean_k      k-outer (one threshold at a time, scalar), serial / prange over K
  lean_blk    t-outer inside blocks of B thresholds, state [N,B] -> SIMD over thresholds, serial / prange over blocks
              (N <= 16: N is a compile-time constant and the asset loop is unrolled; else memory accumulators)
"""

import functools
import numpy as np
from numba import njit, prange

REL, ABS = 1e-9, 1e-12


@njit(inline="always")
def _close(a, b):
    if not (np.isfinite(a) and np.isfinite(b)):
        return False
    return abs(a - b) <= max(REL * max(abs(a), abs(b)), ABS)


@njit(inline="always")
def _add(a, b):
    if np.sign(a) != np.sign(b):
        z = _close(abs(a), abs(b))
    else:
        z = _close(a + b, 0.0)
    return 0.0 if z else a + b


@njit(cache=True)
def _rebalance(pos, sp, cash, o, c, w, fees, ov, seq):
    """Rebalance one portfolio in place; pos[n * sp] are units; returns (cash, filled orders)."""
    N = w.shape[0]
    value = cash
    for n in range(N):
        p = pos[n * sp]
        if p != 0:
            value += p * o[n]
    for n in range(N):  # stable insertion argsort by approx. order value
        x = w[n] * value - pos[n * sp] * o[n]
        j = n - 1
        while j >= 0 and (ov[j] > x or np.isnan(ov[j])):
            ov[j + 1] = ov[j]
            seq[j + 1] = seq[j]
            j -= 1
        ov[j + 1] = x
        seq[j + 1] = n
    cnt = 0
    if np.isnan(value):
        return cash, 0
    if value <= ABS:
        return cash, 0  # rejected: value zero or negative
    for q in range(N):
        n = seq[q]
        if np.isnan(w[n]) or np.isnan(c[n]) or np.isnan(o[n]):
            continue
        if abs(cash) <= ABS:
            cash = 0.0
        p = pos[n * sp]
        if abs(p) <= ABS:
            p = 0.0
            pos[n * sp] = 0.0
        size = w[n] * value / o[n] - p
        if size > 0:
            if cash == 0.0:
                continue
            if abs(size) <= ABS:
                continue
            req = size * c[n]
            tot = req + req * fees
            if tot < cash or _close(tot, cash):
                pay = tot
            else:
                mx = _add(cash, 0.0) / (1 + fees)
                if mx <= 0:
                    continue
                size = mx / c[n]
                pay = cash
            cash = _add(cash, -pay)
            pos[n * sp] = _add(p, size)
            cnt += 1
        else:
            size = -size
            if size <= ABS:
                continue
            acq = size * c[n]
            fin = _add(acq, -(acq * fees))
            if fin < 0:
                continue
            cash = cash + fin
            pos[n * sp] = _add(p, -size)
            cnt += 1
    return cash, cnt


@njit(cache=True)
def _one_k(open_, close, thr, w, fees, cash, value_out, k, pos, ov, seq):
    T, N = close.shape
    nord = 0
    nreb = 0
    inpos = False
    for t in range(T):
        reb = False
        if not inpos:
            reb = True
        else:
            v = cash
            for n in range(N):
                v += pos[n] * open_[t, n]
            for n in range(N):
                if abs(pos[n] * open_[t, n] / v - w[n]) >= thr:
                    reb = True
                    break
        if reb:
            cash, m = _rebalance(pos, 1, cash, open_[t], close[t], w, fees, ov, seq)
            nord += m
            nreb += 1
            inpos = False
            for n in range(N):
                if pos[n] != 0:
                    inpos = True
                    break
        v = cash
        for n in range(N):
            v += pos[n] * close[t, n]
        value_out[t, k] = v
    return nord, nreb


# two separate functions: Numba's on-disk cache does not distinguish parallel=True from False of one function
@njit(cache=True)
def lean_k(open_, close, thr, w, fees, init_cash, value):
    T, N = close.shape
    K = thr.shape[0]
    nord = np.zeros(K, np.int64)
    nreb = np.zeros(K, np.int64)
    for k in range(K):
        pos = np.zeros(N)
        ov = np.empty(N)
        seq = np.empty(N, np.int64)
        nord[k], nreb[k] = _one_k(open_, close, thr[k], w, fees, init_cash, value, k, pos, ov, seq)
    return value, nord, nreb


@njit(parallel=True, cache=True)
def lean_k_par(open_, close, thr, w, fees, init_cash, value):
    T, N = close.shape
    K = thr.shape[0]
    nord = np.zeros(K, np.int64)
    nreb = np.zeros(K, np.int64)
    for k in prange(K):
        pos = np.zeros(N)
        ov = np.empty(N)
        seq = np.empty(N, np.int64)
        nord[k], nreb[k] = _one_k(open_, close, thr[k], w, fees, init_cash, value, k, pos, ov, seq)
    return value, nord, nreb


def _make_blk(NC, B):
    """NC > 0: compile-time number of assets (unrolled); 0: dynamic.  scan/mark stay out of line so that LLVM
    vectorises their loops over the B thresholds."""

    if NC > 0:

        @njit
        def scan(o, pos, cash, w, th, v, dev):
            hit = 0
            for b in range(B):
                x = cash[b]
                for n in range(NC):
                    x += pos[n, b] * o[n]
                v[b] = x
                d = 0.0
                for n in range(NC):
                    d = max(d, abs(pos[n, b] * o[n] - w[n] * x))
                dev[b] = d
                hit += d >= th[b] * x
            return hit

        @njit
        def mark(c, pos, cash, row):
            for b in range(B):
                x = cash[b]
                for n in range(NC):
                    x += pos[n, b] * c[n]
                row[b] = x

    else:

        @njit
        def scan(o, pos, cash, w, th, v, dev):
            N = w.shape[0]
            acc = np.empty(B)
            hit = 0
            for b in range(B):
                acc[b] = cash[b]
            for n in range(N):
                on = o[n]
                for b in range(B):
                    acc[b] += pos[n, b] * on
            for b in range(B):
                v[b] = acc[b]
                dev[b] = 0.0
            for n in range(N):
                on = o[n]
                wn = w[n]
                for b in range(B):
                    dev[b] = max(dev[b], abs(pos[n, b] * on - wn * acc[b]))
            for b in range(B):
                hit += dev[b] >= th[b] * acc[b]
            return hit

        @njit
        def mark(c, pos, cash, row):
            for b in range(B):
                row[b] = cash[b]
            for n in range(c.shape[0]):
                cn = c[n]
                for b in range(B):
                    row[b] += pos[n, b] * cn

    @njit
    def block(open_, close, thr, w, fees, init_cash, value, nord, nreb, k0, k1):
        T, N = close.shape
        n_k = k1 - k0
        pos = np.zeros((N, B))
        posf = pos.reshape(N * B)
        cash = np.full(B, init_cash)
        v = np.empty(B)
        dev = np.empty(B)
        row = np.empty(B)
        inpos = np.zeros(B, np.bool_)
        th = np.full(B, np.inf)
        for b in range(n_k):
            th[b] = thr[k0 + b] * (1.0 - 1e-9)
        ov = np.empty(N)
        seq = np.empty(N, np.int64)
        all_in = False
        for t in range(T):
            o = open_[t]
            c = close[t]
            hit = scan(o, pos, cash, w, th, v, dev)
            if hit > 0 or not all_in:
                all_in = True
                for b in range(n_k):
                    reb = not inpos[b]
                    if not reb and dev[b] >= th[b] * v[b]:
                        for n in range(N):  # exact decision, as vectorbt does it
                            if abs(pos[n, b] * o[n] / v[b] - w[n]) >= thr[k0 + b]:
                                reb = True
                                break
                    if reb:
                        cash[b], m = _rebalance(posf[b:], B, cash[b], o, c, w, fees, ov, seq)
                        nord[k0 + b] += m
                        nreb[k0 + b] += 1
                        ip = False
                        for n in range(N):
                            if pos[n, b] != 0:
                                ip = True
                                break
                        inpos[b] = ip
                    all_in &= inpos[b]
            if n_k == B:
                mark(c, pos, cash, value[t, k0 : k0 + B])
            else:
                mark(c, pos, cash, row)
                for b in range(n_k):
                    value[t, k0 + b] = row[b]

    def run(open_, close, thr, w, fees, init_cash, value):
        K = thr.shape[0]
        nord = np.zeros(K, np.int64)
        nreb = np.zeros(K, np.int64)
        for j in prange((K + B - 1) // B):
            k0 = j * B
            k1 = min(K, k0 + B)
            block(open_, close, thr, w, fees, init_cash, value, nord, nreb, k0, k1)
        return value, nord, nreb

    return njit(run), njit(run, parallel=True)


@functools.lru_cache(None)
def blk_kernels(NC, B):
    return _make_blk(NC, B)


def pick_block(N, K, nthreads=1):
    """Block width; choices measured on the benchmark machine (AVX2)."""
    per = -(-K // nthreads)
    if N <= 16:
        return next((B for B in (4, 8, 16, 64) if per <= B), 128)
    if N >= 200:
        return 4
    return 4 if per <= 4 else 8 if per < 64 else 128


def lean_blk(open_, close, thr, w=None, fees=0.005, init_cash=100.0, parallel=False, nthreads=2, B=None, out=None):
    T, N = close.shape
    K = len(thr)
    if w is None:
        w = np.full(N, 1 / N)
    if B is None:
        B = pick_block(N, K, nthreads if parallel else 1)
    ser, par = blk_kernels(N if N <= 16 else 0, B)
    if out is None:
        out = np.empty((T, K))
    return (par if parallel else ser)(open_, close, thr, w, fees, init_cash, out)


def lean(open_, close, thr, w=None, fees=0.005, init_cash=100.0, parallel=False, out=None):
    T, N = close.shape
    if w is None:
        w = np.full(N, 1 / N)
    if out is None:
        out = np.empty((T, len(thr)))
    return (lean_k_par if parallel else lean_k)(open_, close, thr, w, fees, init_cash, out)
