"""Runs queries of `mlrm data pairs --sql` where they are meant for, and prints what they give.

    run_queries.py ENGINE FOLDER     ENGINE is spark, duckdb or datafusion

FOLDER has one folder a case: `query.sql`, `log.csv` (user_id, note_id, timestamp, with a header) and perhaps
`notes.csv` (id). The result of a case becomes `result.csv` in it, weights in digits that read back as the same double. Exits
with 77 where the engine is not installed.
"""
import csv
import os
import sys
from pathlib import Path

engine, folder = sys.argv[1], Path(sys.argv[2])


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def columns(case):
    log = rows_of(case / "log.csv")
    users = [row["user_id"] for row in log]
    notes = [row["note_id"] for row in log]
    return users, notes, [int(row["timestamp"]) for row in log]


def arrow(case):
    import pyarrow as pa
    users, notes, times = columns(case)
    tables = {"interactions": pa.table({
        "user_id": pa.array(users, pa.string()),
        "note_id": pa.array(notes, pa.string()),
        "timestamp": pa.array(times, pa.int64()),
    })}
    if (case / "notes.csv").exists():
        ids = [row["id"] for row in rows_of(case / "notes.csv")]
        tables["notes"] = pa.table({"id": pa.array(ids, pa.string())})
    return tables


def with_duckdb():
    import duckdb

    def run(case, sql):
        with duckdb.connect() as connection:
            for name, table in arrow(case).items():
                connection.register(name, table)
            return connection.sql(sql).fetchall()

    return run


def with_datafusion():
    import datafusion

    def run(case, sql):
        context = datafusion.SessionContext()
        for name, table in arrow(case).items():
            context.from_arrow(table, name=name)
        rows = []
        for batch in context.sql(sql).collect():
            rows += list(zip(*(column.to_pylist() for column in batch.columns)))
        return rows

    return run


def with_spark():
    import pyspark
    from pyspark.sql import SparkSession

    # Two workers, each a process of its own, started by the session.
    os.environ.setdefault("SPARK_HOME", os.path.dirname(pyspark.__file__))
    os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = SparkSession.builder.master(os.environ.get("MLRM_SPARK_MASTER", "local-cluster[2,1,1024]"))
    settings = {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "2",
                "spark.executor.memory": "512m", "spark.sql.adaptive.enabled": "false",
                # A hundred rows are interpreted sooner than compiled.
                "spark.sql.codegen.wholeStage": "false", "spark.sql.codegen.factoryMode": "NO_CODEGEN",
                "spark.ui.showConsoleProgress": "false"}
    for key, value in settings.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    print("master", session.sparkContext.master)

    def run(case, sql):
        for name, table in arrow(case).items():
            session.createDataFrame(table.to_pylist(), schema=", ".join(
                f"{field.name} {'bigint' if field.name == 'timestamp' else 'string'}" for field in table.schema
            )).repartition(2).createOrReplaceTempView(name)
        return [tuple(row) for row in session.sql(sql).collect()]

    return run


engines = {"duckdb": with_duckdb, "datafusion": with_datafusion, "spark": with_spark}
try:
    import pyarrow  # noqa: F401, the tables of a case
    run = engines[engine]()
except ImportError as error:
    print(f"{engine} is not installed: {error}", file=sys.stderr)
    sys.exit(77)
for case in sorted(folder.iterdir()):
    try:
        rows = run(case, (case / "query.sql").read_text(encoding="utf-8"))
    except Exception as error:
        print(f"{case.name}: {error}", file=sys.stderr)
        sys.exit(1)
    with (case / "result.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["query_id", "target_id", "weight"])
        for query, target, weight in rows:
            writer.writerow([query, target, repr(float(weight))])
