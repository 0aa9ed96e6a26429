"""The rows, when a policy admits them for training; else no model after this one is built."""

import os

import safegen


def model(dbt, session):
    dbt.config(materialized="table")
    place, policy = os.environ["SAFEGEN_ROWS"], os.environ.get("SAFEGEN_POLICY", "training")
    safegen.guard(place, policy=policy)  # AdmissionRefused ends `dbt build` here
    return dbt.ref("rows")
