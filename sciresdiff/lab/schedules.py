"""Schedules of the methods that the default is compared with: the numbers that the papers publish -> a path."""

from __future__ import annotations

import math

import numpy as np

from sciresdiff.diffusion.path import Array, Path
from sciresdiff.diffusion.schedule import path_from_noisy


def _from_betas(beta: Array) -> Path:
    """A variance-preserving path: abar_t = prod(1 - beta), a = sqrt(abar), s = sqrt(1 - abar)."""
    abar = np.cumprod(1 - beta)
    return path_from_noisy(np.sqrt(abar), np.zeros_like(abar), np.sqrt(1 - abar))


def vp_linear(T: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Path:
    """Beta linear in the index (DDPM, Ho et al. 2020)."""
    return _from_betas(np.linspace(beta_start, beta_end, T))


def scaled_linear(T: int = 1000, beta_start: float = 0.0015, beta_end: float = 0.0195) -> Path:
    """The square root of beta linear in the index (latent diffusion, Rombach et al. 2022)."""
    return _from_betas(np.linspace(math.sqrt(beta_start), math.sqrt(beta_end), T) ** 2)


def vp_cosine(T: int = 1000, offset: float = 0.008, beta_max: float = 0.999) -> Path:
    """abar_t proportional to cos^2(pi/2 (t/T + offset) / (1 + offset)) (Nichol & Dhariwal 2021)."""
    abar = np.cos((np.arange(T + 1) / T + offset) / (1 + offset) * np.pi / 2) ** 2
    return _from_betas(np.minimum(1 - abar[1:] / abar[:-1], beta_max))


def vp_zero_snr(T: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012) -> Path:
    """`scaled_linear` with sqrt(abar) moved and stretched to end at 0, its first value kept (Lin et al. 2024)."""
    path = scaled_linear(T, beta_start, beta_end)
    a = path.a[1:]
    a = (a - a[-1]) * (a[0] / (a[0] - a[-1]))
    return path_from_noisy(a, 0 * a, np.sqrt(1 - a**2))


def _times(T: int, first: float) -> Array:
    """T times from the first to 1, uniform."""
    return np.linspace(first, 1, T) if T > 1 else np.ones(1)


def _vp_signal(t: Array, beta_min: float, beta_max: float) -> Array:
    """exp(-1/2 int_0^t beta) with beta linear in t."""
    return np.exp(-(t**2) * (beta_max - beta_min) / 4 - t * beta_min / 2)


def vp(T: int = 1000, beta_min: float = 0.1, beta_max: float = 20.0, first: float = 1e-3) -> Path:
    """The variance-preserving equation at T times from ``first`` to 1 (Song et al. 2021, equation 11).

    dx = -beta x / 2 dt + sqrt(beta) dW with beta linear in t: ln a = -1/2 int beta, s^2 = 1 - a^2.
    """
    a = _vp_signal(_times(T, first), beta_min, beta_max)
    return path_from_noisy(a, 0 * a, np.sqrt(1 - a**2))


def sub_vp(T: int = 1000, beta_min: float = 0.1, beta_max: float = 20.0, first: float = 1e-3) -> Path:
    """The sub-VP equation (Song et al. 2021, equation 12): a as in `vp`, s = 1 - a^2, less noise at every time."""
    a = _vp_signal(_times(T, first), beta_min, beta_max)
    return path_from_noisy(a, 0 * a, 1 - a**2)


def ve(T: int = 1000, sigma_min: float = 0.01, sigma_max: float = 50.0, first: float = 1e-5) -> Path:
    """The variance-exploding equation (Song et al. 2021): a = 1, s = sigma_min (sigma_max / sigma_min)^t."""
    s = sigma_min * (sigma_max / sigma_min) ** _times(T, first)
    return path_from_noisy(np.ones(T), np.zeros(T), s)


def mean_reverting(T: int = 100, stationary_sd: float = 30 / 255, delta: float = 0.005) -> Path:
    """a = exp(-Theta), b = 1 - a, s = stationary_sd sqrt(1 - a^2), a_T = delta (IR-SDE, Luo et al. 2023).

    Theta_t is the sum of theta_i = 1 - cos^2(pi/2 ((i + 1) / (T + 2) + 0.008) / 1.008), scaled to end at ln(1 / delta).
    """
    angle = np.cos((np.arange(T + 2) / (T + 2) + 0.008) / 1.008 * np.pi / 2) ** 2
    theta = 1 - angle[1:] / angle[0]
    total = np.cumsum(theta)[1:] - theta[0]
    a = np.exp(total * math.log(delta) / total[-1])
    return path_from_noisy(a, 1 - a, stationary_sd * np.sqrt(1 - a**2))


def bridge(T: int = 1000, beta_min: float = 0.1, beta_max: float = 0.3, noise: float = 1.0) -> Path:
    """A Schroedinger bridge from image to anchor (I2SB, Liu et al. 2023), beta symmetric about the middle.

    With v_t the sum of beta up to t: b = v_t / v_T, a = 1 - b, s = noise sqrt(v_T a b).  No noise at either end;
    ``noise`` = 0 is optimal transport.
    """
    rising = np.linspace(math.sqrt(beta_min / T), math.sqrt(beta_max / T), T) ** 2
    beta = np.concatenate([rising[: (T + 1) // 2], rising[: T // 2][::-1]])
    span = float(beta.sum())
    b = np.cumsum(beta) / span
    b[-1] = 1.0
    return path_from_noisy(1 - b, b, noise * np.sqrt(span * b * (1 - b)), "shift", span=span)


def interpolant(T: int = 20, noise: float = 1.0) -> Path:
    """a = 1 - t, b = t, s = noise sqrt(2 t (1 - t)), t = index / T (Albergo & Vanden-Eijnden 2023, table 8).

    A stochastic interpolant between image and anchor, without noise at either end; its posterior is the bridge's.
    """
    t = np.arange(1, T + 1) / T
    return path_from_noisy(1 - t, t, noise * np.sqrt(2 * t * (1 - t)), "shift")


def linear_flow(T: int = 20) -> Path:
    """a = 1 - t/T, s = t/T (flow matching, Lipman et al. 2023; rectified flow, Liu et al. 2023)."""
    s = np.arange(1, T + 1) / T
    return path_from_noisy(1 - s, 0 * s, s)


def edm(T: int = 18, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0, sd: float = 0.5) -> Path:
    """a = 1, s = sigma with sigma^(1/rho) linear in the index (Karras et al. 2022); sd is that of the data."""
    s = np.linspace(sigma_min ** (1 / rho), sigma_max ** (1 / rho), T) ** rho if T > 1 else np.array([sigma_max])
    return path_from_noisy(np.ones(T), np.zeros(T), s, sd=sd)
