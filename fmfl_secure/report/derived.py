"""Derives from settings what a report says of them: the privacy mechanism, and the encryption.

`report.results` puts both into a run's record, and `report.agreement` works them out again from the
settings in a record, to hold it against itself.
"""

from __future__ import annotations

from fmfl_secure.planning.answers import answer_plan, asked_of
from fmfl_secure.planning.plans import encryption_parameters, site_plan, value_bits
from fmfl_secure.run.record import Encryption, Mechanism
from fmfl_secure.settings.federation import FederationConfig
from privacy import RELATION


def mechanism_of(config: FederationConfig, parameters: int) -> Mechanism:
    """Returns the privacy mechanism of a run by these settings, of training or of answers alone.

    Args:
        config: The settings.
        parameters: Trained parameters, or values of an answer.

    Raises:
        ConfigError, PlanError: The settings cannot be met.
    """
    privacy, shares = config.privacy, config.privacy.noise_mechanism.in_shares
    if not config.trains:
        return _mechanism_of_answers(config)
    # Of training and answers together: both are charged, and cost no more than they add up to.
    asked = config.asked
    epsilon = privacy.epsilon + (0.0 if asked is None else asked.epsilon)
    insider = privacy.insider_epsilon + (0.0 if asked is None else asked.insider_epsilon)
    # The same at every site: it depends on the sample rate and not on the population.
    plan = site_plan(config, config.sites[0], parameters)
    return Mechanism(
        noise=privacy.noise,
        unit=config.task.unit,
        relation=RELATION,
        target_epsilon=0.0 if not privacy.noise_mechanism.private else epsilon,
        delta=privacy.delta,
        sample_rate=privacy.sample_rate,
        noise_multiplier=0.0 if plan is None else plan.noise_multiplier,
        max_grad_norm=privacy.max_grad_norm,
        steps_per_round=privacy.steps_per_round,
        rounds=config.federation.rounds,
        repeats=privacy.repeats,
        colluding_sites=privacy.colluding_sites if shares else 0,
        insider_epsilon=insider if shares else 0.0,
        answers_noise_multiplier=0.0
        if asked is None
        else answer_plan(config).event().noise_multiplier,
    )


def encryption_of(config: FederationConfig, *, parameters: int, upload: int) -> Encryption:
    """Returns how updates are protected on their way.

    Args:
        config: The settings.
        parameters: Length of an update.
        upload: Bytes that one site uploads in a round.

    Raises:
        ParameterError: No encryption parameter set fits the settings.
    """
    chosen = encryption_parameters(config, parameters)
    return Encryption(
        suite=chosen.suite,
        parameter_set=chosen.id,
        poly_modulus_degree=chosen.poly_modulus_degree,
        coeff_mod_bit_sizes=chosen.coeff_mod_bit_sizes,
        security_bits=chosen.security_bits,
        bits=value_bits(config, parameters),
        parameters=parameters,
        upload_bytes=upload,
    )


def _mechanism_of_answers(config: FederationConfig) -> Mechanism:
    """Of a run that trains nothing: every unit is in every answer, and bounded by the plan's."""
    privacy, asked, plan = config.privacy, asked_of(config), answer_plan(config)
    shares = privacy.noise_mechanism.in_shares
    return Mechanism(
        noise=privacy.noise,
        unit=config.task.unit,
        relation=RELATION,
        target_epsilon=asked.epsilon,
        delta=privacy.delta,
        sample_rate=1.0,
        noise_multiplier=plan.event().noise_multiplier,
        max_grad_norm=1.0,
        steps_per_round=1,
        rounds=plan.answers,
        repeats=plan.repeats,
        colluding_sites=privacy.colluding_sites if shares else 0,
        insider_epsilon=asked.insider_epsilon if shares else 0.0,
    )
