"""Every method in a run: what it costs, that it can be resumed, and what is refused."""

from pathlib import Path

import pytest
import torch

from budgetlab import analysis, methods
from budgetlab.analysis.conditions import as_read, unread
from budgetlab.errors import InputError, RunError
from budgetlab.training import Run, engine

WITH_PROXY = ("rho-loss", "el2n-pruned", "forgetting-pruned")
OPTIONS = {
    "top-k": {"keep_fraction": 0.25},
    "rho-loss": {"keep_fraction": 0.25, "proxy_share": 0.4},
}


@pytest.fixture
def build(config):
    """A run on 128 points, with some settings changed."""

    def run(**settings: object) -> Run:
        known = OPTIONS.get(str(settings.get("method")), {})
        return Run(config.replace(**{"epochs": 8, "batch_size": 8} | known | settings))

    return run


@pytest.fixture
def go(build):
    """The same, trained to its end."""

    def train(**settings: object) -> Run:
        run = build(**settings)
        list(run)
        return run

    return train


# Other values of all settings that some runs do not read, and of how often a run is tested.
OTHERS = {
    "smoothing": 3.0, "power": 2.0, "class_shares": "kept", "averaging": "last", "credit": "row",
    "fidelity": "published", "sb_beta": 2.0, "sb_staleness": 2, "keep_fraction": 0.5,
    "presample": 2, "grad_norm_threshold": 2.0, "prune_fraction": 0.2, "subset_fraction": 0.4,
    "hard_cutoff": 0.2, "proxy_share": 0.3, "proxy_model": "mlp", "holdout_fraction": 0.2,
    "alpha": 1.0, "randaugment_n": 1, "randaugment_m": 9, "milestones": (0.3, 0.6),
    "noise_kind": "pair", "copies": 3, "redundancy_kind": "varied", "evaluate_every": 0,
}  # fmt: skip


@pytest.mark.parametrize("method", methods.names())
def test_what_a_run_does_not_read_changes_no_weight_and_makes_no_condition(method, go):
    # Long enough for scoring runs of a core set.
    usual = {"method": method, "epochs": 24 if methods.find(method).family == "core set" else 8}
    run = go(**usual)
    missed = unread(run.config.to_dict())
    assert missed - {"weights"} <= {*OTHERS}
    changed = {name: value for name, value in OTHERS.items() if name in missed}
    other = go(**usual | changed, evaluate_every=0)
    one, two = (r.loop.engine.network.state_dict() for r in (run, other))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert run.config.id != other.config.id
    assert as_read(other.config.to_dict()) == as_read(run.config.to_dict()) | {
        "evaluate_every": 0, "out": other.config.out}  # fmt: skip
    with pytest.warns(analysis.RecordWarning, match="repeated later with the same settings"):
        assert analysis.results([run.record, other.record])["n"].tolist() == [1]


def test_what_is_read_only_under_other_settings():
    settings = {"method": "unif-SGD", "augmentation": "mixup", "schedule": "step",
                "label_noise": 0.1, "redundancy": 0.5}  # fmt: skip
    read = {"alpha", "fidelity", "milestones", "noise_kind", "copies", "redundancy_kind"}
    assert not read & unread(settings)
    plain = {"augmentation": "standard", "schedule": "linear", "label_noise": 0, "redundancy": 0}
    assert read < unread(settings | plain)
    # What a custom method reads is not known.
    assert unread(settings | {"method": "mine"}) == {"randaugment_n", "randaugment_m"}


def test_at_equal_iterations_looking_comes_on_top_and_at_equal_flops_it_costs_steps(go):
    for unit in ("iterations", "flops"):
        settings = {"epochs": 12, "budget": 0.25, "limit": 256, "budget_unit": unit}
        selective = go(method="selective-backprop", **settings).ledger
        uniform = go(method="unif-SGD", **settings).ledger
        assert selective.looked_samples > selective.trained_samples
        costs = selective.costs
        assert selective.flops == (selective.looked_samples * costs.forward
            + selective.trained_samples * costs.forward_backward)  # fmt: skip
        if unit == "iterations":
            assert selective.steps == uniform.steps
            assert selective.flops > 1.5 * uniform.flops
        else:
            assert selective.steps < uniform.steps


@pytest.mark.parametrize("unit", ["iterations", "samples", "flops"])
@pytest.mark.parametrize("method", WITH_PROXY)
def test_the_proxy_spends_its_share_and_the_schedule_starts_after_it(method, unit, go, build):
    run = go(method=method, budget_unit=unit, proxy_share=0.4)
    limit, ledger = run.budget.limit, run.ledger
    assert 0.3 * limit < run.budget.head_start <= 0.4 * limit
    assert ledger.proxy_steps > 0
    assert unit != "iterations" or ledger.steps == limit - ledger.proxy_steps
    assert ledger.flops - ledger.proxy_flops == (
        ledger.trained_samples * ledger.costs.forward_backward
        + ledger.looked_samples * ledger.costs.forward
    )
    forward = 128 if method == "rho-loss" else 0
    assert ledger.proxy_samples == 8 * ledger.proxy_steps + forward
    assert analysis.summaries(run.record)["proxy_samples"].item() == ledger.proxy_samples
    # The first step is made at the full rate, but for what was looked at to choose it:
    # counted from the start of the run, it would be at 0.07 or less.
    first, rates = build(method=method, budget_unit=unit, proxy_share=0.4), []
    step = first.loop.engine.step
    first.loop.engine.step = lambda batch, lr, learn: rates.append(lr) or step(batch, lr, learn)
    next(iter(first))
    assert rates[0] > 0.085


def test_the_proxy_never_sees_the_test_set(build, monkeypatch):
    run, given = build(method="rho-loss", val_fraction=0.25), []

    class Spy(engine.Engine):
        def __init__(self, config, name, samples, *rest):
            given.append(samples)
            super().__init__(config, name, samples, *rest)

    monkeypatch.setattr(engine, "Engine", Spy)
    list(run)
    (samples,) = given
    assert torch.equal(samples.x, run.splits.val.x)
    # 96 are left to train on, and all of them may be.
    assert len(run.loop.sampler.pool) == 96


def test_rho_loss_avoids_wrong_labels_and_top_k_seeks_them(config):
    digits = config.replace(dataset="digits", augmentation="none", limit=0, label_noise=0.2,
                            val_fraction=0.2, epochs=16, batch_size=32, budget=0.3,
                            keep_fraction=0.25, evaluate_every=0)  # fmt: skip
    shares = {}
    for method in ("top-k", "rho-loss"):
        run = Run(digits.replace(method=method))
        for _ in run:
            pass
        noisy = torch.tensor(run.splits.train.metadata.is_noisy.to_numpy())
        times = run.history.times_trained.float()
        shares[method] = (times[noisy].sum() / times.sum()).item()
    # A uniform draw would be at 0.2.
    assert shares["top-k"] > 0.3
    assert shares["rho-loss"] < 0.14


def test_another_model_can_be_the_proxy(config):
    for settings, model in (
        ({"method": "rho-loss", "keep_fraction": 0.5, "proxy_model": "resnet8"}, "resnet8"),
        ({"method": "rho-loss", "keep_fraction": 0.5}, "tiny"),
        ({"method": "el2n-pruned"}, "small"),
    ):
        run = Run(config.replace(dataset="digits", limit=64, epochs=8, **settings))
        assert run.loop._proxies._model(run.loop.sampler.proxy) == model


def test_losses_and_error_norms_count_all_labels_of_a_mixed_image(config):
    run = Run(config.replace(dataset="digits", limit=64, augmentation="mixup"))
    seen, y = run.loop.engine.look(torch.arange(16)), run.splits.train.y
    shares = torch.zeros(16, 10)
    for source, weight in zip(seen.augmented.sources.T, seen.augmented.weights.T, strict=True):
        shares[torch.arange(16), y[source]] += weight
    torch.testing.assert_close(seen.error_norms, (seen.probabilities - shares).norm(dim=1))
    torch.testing.assert_close(seen.losses, -(shares * seen.probabilities.log()).sum(1))
    assert ((seen.augmented.weights > 0).sum(1) == 2).any()


# What is refused, before anything is written


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(method="top-k", keep_fraction=0.05, epochs=1, budget=0.5, budget_unit="samples"),
         "looks at 128 samples for its first step on 8, more than the budget pays for in samples"),
        (dict(method="rho-loss", epochs=2, proxy_share=0.2, budget_unit="samples"),
         "trains a network 'mlp' on 13 samples first, and proxy-share 0.2 of the budget does not "
         "pay for one step of it and a look at all 128 samples in samples"),
        (dict(method="el2n-pruned", epochs=1, proxy_share=0.01),
         "does not pay for one step of it in iterations"),
        (dict(method="el2n-pruned", epochs=1, proxy_share=0.99),
         "has no step left beside its scoring run, which takes proxy-share 0.99 of the budget"),
        (dict(method="rho-loss", proxy_model="small"), "model 'small' cannot take points"),
        (dict(method="rho-loss", proxy_model="smal"), "unknown model 'smal': did you mean 'small'"),
        (dict(method="grad-norm", presample=20), "looks at 20 x 8 candidates, more than the 128"),
        (dict(method="top-k", budget=0.01), "less than one batch of 8"),
        (dict(method="infobatch", budget=0.01), "less than one batch of 8"),
        (dict(method="curriculum", weights="unbiased"), "weights 'unbiased' do not exist for"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_in_a_sentence(settings, message, build, config):
    with pytest.raises(InputError) as error:
        build(**settings)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    out = Path(config.out)
    assert not out.exists() or not list(out.iterdir())


def test_a_budget_spent_before_the_first_step_is_said(build):
    run = build(method="el2n-pruned")
    ledger, train_proxy = run.ledger, run.loop._proxies

    def slow(plan, generator):
        # As a proxy that takes longer than it was given, which only seconds allow.
        done = train_proxy(plan, generator)
        ledger.proxy_steps = int(run.budget.limit)
        return done

    run.loop._proxies = slow
    with pytest.raises(RunError, match=r"was spent before the first step of method 'el2n-pruned'"):
        for _ in run:
            pass
    assert run.record.status == "failed"
