"""Apache Kafka itself on loopback, for tests: one or three brokers, with TLS, logins and rights where asked.

It needs Java 17, and Maven once, to bring its jars (100 MB) into a cache. TAMIS_TEST_KAFKA_VERSION names another
version of Kafka, TAMIS_TEST_KAFKA_CACHE another folder for the jars.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from kafka import KafkaAdminClient
from kafka.admin import ScramMechanism, UserScramCredentialUpsertion  # type: ignore[attr-defined]

from ... import BrokerAbsent
from .client import connected, listens
from .embedded_broker import dying_with_parent

VERSION = os.environ.get("TAMIS_TEST_KAFKA_VERSION", "4.1.0")
_CACHE = Path(os.environ.get("TAMIS_TEST_KAFKA_CACHE", "~/.cache/tamis")).expanduser()
# The last one writes Kafka's errors to its output.
_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>tamis</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{0}</version></dependency>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>{0}</version></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.24.3</version>
</dependency></dependencies></project>
"""
# Takes two thirds of the processor time that the defaults take to start.
_JAVA = ("-Xmx400m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
_PROPERTIES = """
process.roles=broker,controller
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL
auto.create.topics.enable=false
default.replication.factor={total}
min.insync.replicas={least}
offsets.topic.replication.factor={total}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={total}
transaction.state.log.min.isr={least}
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
"""
_SECURED = """
ssl.keystore.type=PEM
ssl.keystore.location={store}
ssl.truststore.type=PEM
ssl.truststore.location={ca}
listener.name.ssl.ssl.client.auth=requested
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
listener.name.sasl_ssl.plain.sasl.jaas.config={modules}plain.PlainLoginModule required{users};
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config={modules}scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={modules}scram.ScramLoginModule required;
listener.name.sasl_ssl.oauthbearer.sasl.jaas.config={modules}oauthbearer.OAuthBearerLoginModule required {nobody};
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"""
_FETCH_S, _START_S, _STOP_S = 600.0, 90.0, 60.0


class Security(NamedTuple):
    """TLS, logins and rights. Clients of the plain listener may still do everything: it is for the tests themselves.

    ca, certificate, key: PEM files, the broker's own. users: their passwords, for PLAIN and both SCRAM; OAUTHBEARER
    takes an unsecured token of any name.
    """

    ca: str
    certificate: str
    key: str
    users: Mapping[str, str]


class ApacheKafka:
    """One or three brokers, each also a controller, with data in a temporary folder: all of it is gone after `stop`.

    On Linux they end with the thread that started them, however that ends. The face is that of `EmbeddedBroker`.

    Args:
        brokers: 1; or 3, where topics have three replicas, and two must confirm a message.
        security: adds the listeners SSL (a client's certificate is optional) and SASL_SSL, whose clients may do only
            what they are allowed to (`StandardAuthorizer`). properties: more of Kafka's own settings. java: flags.

    Raises:
        BrokerAbsent: no Java, no jars and no Maven to bring them, or Kafka does not start.
    """

    kind = "kafka"

    def __init__(
        self,
        brokers: int = 1,
        *,
        security: Security | None = None,
        properties: Mapping[str, str] | None = None,
        java: Sequence[str] = _JAVA,
    ) -> None:
        self._java = java
        self.brokers, self.security, self._properties = range(1, brokers + 1), security, dict(properties or {})
        self.client_settings: dict[str, Any] = {"session_timeout_ms": 6_000, "heartbeat_interval_ms": 300}
        self.ports: dict[str, list[int]] = {}  # by listener, one of each broker
        self.folder: Path | None = None
        self._reserved: list[socket.socket] = []
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def bootstrap(self) -> str:
        return self.address("PLAINTEXT")

    def address(self, listener: str) -> str:
        """Of PLAINTEXT; of SSL or SASL_SSL where there is security."""
        return ",".join(f"127.0.0.1:{port}" for port in self.ports[listener])

    def __enter__(self) -> ApacheKafka:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self, broker: int | None = None) -> None:
        """Starts all that do not run, or one of them (1, 2, 3), on its port and data; returns once they serve."""
        command = [_java(), *self._java, "-cp", f"{_jars()}/*", "kafka.Kafka"]
        if not self.ports:
            self._reserve()
        is_new, self.folder = self.folder is None, self.folder or Path(tempfile.mkdtemp(prefix="tamis-kafka-"))
        try:
            for n in self._chosen(broker):
                if n not in self._processes:
                    self._launch(n, self.folder / str(n), command)
            self._wait(self.folder)
            if is_new and self.security is not None:
                self._add_users(self.security.users)
        except BaseException:  # Ctrl-C too: otherwise nothing would call stop()
            self.stop()
            raise

    def _chosen(self, broker: int | None) -> list[int]:
        return list(self.brokers) if broker is None else [broker]

    def _reserve(self) -> None:
        """Takes free ports. On Linux a bound socket keeps its port from others, also while the broker is down."""
        for listener in ("PLAINTEXT", "CONTROLLER", *(("SSL", "SASL_SSL") if self.security else ())):
            for _ in self.brokers:
                reserved = socket.socket()
                reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                reserved.bind(("127.0.0.1", 0))
                self.ports.setdefault(listener, []).append(reserved.getsockname()[1])
                self._reserved.append(reserved)
        if sys.platform != "linux":
            self._release()

    def _release(self) -> None:
        while self._reserved:
            self._reserved.pop().close()

    def _launch(self, n: int, folder: Path, command: list[str]) -> None:
        data = folder / "data"
        if not data.exists():  # what `kafka-storage format` would write, without a second JVM
            data.mkdir(parents=True)
            (data / "meta.properties").write_text(f"version=1\ncluster.id={'tamis':A<22}\nnode.id={n}\n")
        (folder / "conf").write_text(self._conf(n, folder))
        with open(folder / "broker.log", "ab") as output:
            self._processes[n] = subprocess.Popen(
                [*command, str(folder / "conf")],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=folder,
                start_new_session=True,  # Ctrl-C must not reach it: we stop it after its clients have left
                preexec_fn=dying_with_parent(),
            )

    def _conf(self, n: int, folder: Path) -> str:
        total = len(self.brokers)
        voters = [f"{i}@127.0.0.1:{port}" for i, port in zip(self.brokers, self.ports["CONTROLLER"], strict=True)]
        places = {listener: f"{listener}://127.0.0.1:{ports[n - 1]}" for listener, ports in self.ports.items()}
        own = {
            "node.id": n,
            "log.dirs": folder / "data",
            "controller.quorum.voters": ",".join(voters),
            "listeners": ",".join(places.values()),
            "advertised.listeners": ",".join(place for name, place in places.items() if name != "CONTROLLER"),
        }
        text = _PROPERTIES.format(total=total, least=min(2, total))
        if (given := self.security) is not None:
            store = folder / "broker.pem"
            store.touch(0o600)
            store.write_text(Path(given.key).read_text() + Path(given.certificate).read_text())
            users = "".join(f' user_{user}="{password}"' for user, password in given.users.items())
            modules, nobody = "org.apache.kafka.common.security.", 'unsecuredLoginStringClaim_sub="nobody"'
            text += _SECURED.format(store=store, ca=given.ca, users=users, modules=modules, nobody=nobody)
        return text + "".join(f"{key}={value}\n" for key, value in (own | self._properties).items())

    def _wait(self, folder: Path) -> None:
        deadline = time.monotonic() + _START_S
        waiting = [n for n in self.brokers if n in self._processes]
        while waiting or not self._serves():
            for n in waiting:
                code = self._processes[n].poll()
                if code is not None or time.monotonic() > deadline:
                    lines = (folder / str(n) / "broker.log").read_text(errors="replace").splitlines()
                    said = "\n".join(line for line in lines if not line.startswith("\tat "))[-800:]
                    raise BrokerAbsent(f"broker {n} of Apache Kafka {VERSION} did not start (exit {code}): {said}")
            waiting = [n for n in waiting if not listens(f"127.0.0.1:{self.ports['PLAINTEXT'][n - 1]}")]
            if time.monotonic() > deadline:
                raise BrokerAbsent(f"Apache Kafka {VERSION}: the brokers did not find each other in {_START_S:g} s")
            time.sleep(0.05)

    def _serves(self) -> bool:
        """Whether the cluster has all brokers that run; without a majority there is none to ask."""
        if len(self._processes) <= len(self.brokers) // 2:
            return True
        with suppress(BrokerAbsent), closing(connected(KafkaAdminClient, self.bootstrap, None)) as admin:
            known = admin.describe_cluster()["brokers"]
            return {one["broker_id"] for one in known if not one.get("is_fenced")} >= self._processes.keys()
        return False

    def _add_users(self, users: Mapping[str, str]) -> None:
        with closing(connected(KafkaAdminClient, self.bootstrap, None)) as admin:
            for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):  # one of a user at a time
                new = [UserScramCredentialUpsertion(user, mechanism, password) for user, password in users.items()]
                if refused := {user: why for user, why in admin.alter_user_scram_credentials(new).items() if why}:
                    raise BrokerAbsent(f"Apache Kafka {VERSION} did not take the users: {refused}")

    def is_running(self, broker: int | None = None) -> bool:
        """Whether all of them run, or this one."""
        return all(n in self._processes and self._processes[n].poll() is None for n in self._chosen(broker))

    def pids(self) -> list[int]:
        return [process.pid for process in self._processes.values()]

    def kill(self, broker: int | None = None) -> None:
        """SIGKILL to all, or to one of them, like a power cut. `start` brings it back on its port and data."""
        for n in self._chosen(broker):
            if (process := self._processes.pop(n, None)) is not None:
                process.kill()
                process.wait()

    def restart(self, broker: int | None = None) -> None:
        """Ends all, or one of them, cleanly, and starts them again."""
        running = [self._processes[n] for n in self._chosen(broker) if n in self._processes]
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_S)
        self.kill(broker)
        self.start(broker)

    def stop(self) -> None:
        """Ends the processes and removes their data, which are worth no clean end."""
        self.kill()
        self._release()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin" if home else None)
    if java is None:
        raise BrokerAbsent("Apache Kafka needs Java 17 (the program java), such as Debian's default-jre-headless")
    return java


def _jars() -> Path:
    """The folder of the jars; where several processes need them at once, one brings them."""
    jars = _CACHE / f"kafka-{VERSION}"
    if jars.is_dir():
        return jars
    if shutil.which("mvn") is None:
        raise BrokerAbsent(f"Apache Kafka {VERSION} is not in {_CACHE}, and there is no Maven (mvn) to bring it")
    _CACHE.mkdir(parents=True, exist_ok=True)
    with open(_CACHE / "lock", "w") as lock, tempfile.TemporaryDirectory(dir=_CACHE) as folder:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jars.is_dir():
            (Path(folder) / "pom.xml").write_text(_POM.format(VERSION))
            command = ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=jars"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_FETCH_S)
            if done.returncode:
                raise BrokerAbsent(f"Maven did not bring Apache Kafka {VERSION}: {done.stdout.strip()[:500]}")
            (Path(folder) / "jars").rename(jars)  # whole, or not at all
    return jars


@contextmanager
def shared(folder: Path, make: Callable[[], ApacheKafka] = ApacheKafka) -> Iterator[ApacheKafka]:
    """One cluster for all processes that name this folder: the first one starts it, the last one ends it."""
    state = folder / "kafka.json"
    with open(folder / "kafka.lock", "a") as lock, open(folder / "kafka.users", "a") as users:
        fcntl.flock(lock, fcntl.LOCK_EX)
        cluster = make()
        if state.exists():
            cluster.ports = json.loads(state.read_text())["ports"]
        else:
            cluster.start()
            running = {"ports": cluster.ports, "pids": cluster.pids(), "folder": str(cluster.folder)}
            state.write_text(json.dumps(running))
        fcntl.flock(users, fcntl.LOCK_SH)
        fcntl.flock(lock, fcntl.LOCK_UN)
        try:
            yield cluster
        finally:
            fcntl.flock(lock, fcntl.LOCK_EX)
            fcntl.flock(users, fcntl.LOCK_UN)
            with suppress(BlockingIOError):  # others still use it
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                running = json.loads(state.read_text())
                state.unlink()
                for pid in running["pids"]:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                shutil.rmtree(running["folder"], ignore_errors=True)
