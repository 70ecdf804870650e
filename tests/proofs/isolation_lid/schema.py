from tests.proofs import isolation_side

schema = isolation_side.schema()
