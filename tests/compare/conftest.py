import pytest
from stored import DESIGN, Tables, simulated, store

from taghead.compare.results import Results, compare_configurations
from taghead.compare.tables import read_table


@pytest.fixture(scope="session")
def tables() -> Tables:
    return simulated(DESIGN, spread=0.1, noise=0.5)


@pytest.fixture(scope="session")
def results(tables: Tables, tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = store(tmp_path_factory.mktemp("sweep"), *tables)
    return compare_configurations(read_table(folder), num_draws=1000)
