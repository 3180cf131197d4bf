"""Chaos: a line under random SIGKILLs of everything, its brokers included, and an independent checker.

Replayers, workers and a trainer run as processes that are restarted at once whenever they end, as systemd would do. At
the end, a plain consumer, which shares only the decoder with the workers, searches the committed results for every
spectrum_id of the recorded files. An unreadable message must be in the rejects, by its offset. The trainer's buffer
must have stored each spectrum once. On Apache Kafka no line may stand still for more than 15 s while a spectrum waits.

    python -m tests.chaos                                  # both guarantees, 100 kills each
    python -m tests.chaos --kills 10 --seed 7
    TAMIS_TEST_KAFKA=host:9092 python -m tests.chaos       # a cluster of yours, whose brokers are left alone

With Java and Maven the brokers are three of Apache Kafka. Without, it is noida, which is only restarted.
"""
