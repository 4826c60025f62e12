"""The full check of a run's databases, and the quick one at the start of training."""

import time

from config.groups import TrainingOptions
from config.model_config import ModelConfig
from data.check import captions, features, queries, subtitles, tokens, videos
from data.check.databases import RunData, open_databases
from data.check.report import Report
from utils.errors import UserError
from utils.logger import LOGGER


def quick_check(data: RunData) -> Report:
    """Check side files, metas and one record of each feature database."""
    report = Report()
    report.add(data.findings)
    report.add(tokens.quick_findings(data))
    for corpus in data.corpora:
        for checked in (videos, features, subtitles, captions):
            report.add(checked.quick_findings(corpus))
        report.add(queries.quick_findings(data, corpus))
    report.add(features.width_findings(db for corpus in data.corpora for db in corpus.features))
    return report


def full_check(data: RunData, workers: int = 1) -> Report:
    """Make the quick check, and check every record of every database in ``workers`` processes."""
    report = quick_check(data)
    for corpus in data.corpora:
        report.add(features.full_findings(corpus, workers))
        report.add(subtitles.full_findings(corpus, data.vocab_size, workers))
        report.add(queries.full_findings(data, corpus, workers))
        report.add(captions.full_findings(data, corpus, workers))
    return report


def check_before_training(options: TrainingOptions, model_config: ModelConfig) -> None:
    """Make the quick check of a run's databases, on every rank, so that all stop for an error: a
    UserError that names the first errors."""
    if options.skip_data_check:
        return
    start = time.perf_counter()
    report = quick_check(open_databases(options, model_config.f_config.num_words))
    for found in report.warnings:
        LOGGER.warning("data check: %s", found.line())
    if report.errors:
        raise UserError(
            f"the data check found {len(report.errors)} error(s): {report.first_errors()}. python "
            "scripts/check_data.py with the same options says more; --skip_data_check skips it"
        )
    LOGGER.info("data check: %s, %.2f s", report.summary(), time.perf_counter() - start)
