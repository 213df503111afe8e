# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The native core, bound to Python: it holds memory and translates results, and decides nothing.

Every method that touches a ring is one step under the interpreter's lock; the engine's steps release
it. The contracts stand in ``_native.pyi``; the twin in plain Python is ``_twin.py``.
"""

cimport cython
from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_ND, PyBUF_SIMPLE, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno, PyErr_WarnEx
from cpython.memoryview cimport PyMemoryView_FromObject
from cpython.ref cimport PyObject
from cpython.weakref cimport PyWeakref_GetObject, PyWeakref_NewRef
from libc.errno cimport EINTR, ETIMEDOUT, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, strerror
from posix.fcntl cimport fcntl
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap
from posix.unistd cimport close

from collections.abc import Sequence

from ringtun.errors import ConcurrencyError, EndReason, RingCorrupt, SessionClosed

cdef extern from "fcntl.h" nogil:
    const int F_DUPFD_CLOEXEC

cdef extern from "time.h" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec

cdef extern from "poll.h" nogil:
    const short POLLIN

    struct pollfd:
        int fd
        short events
        short revents

    int ppoll(pollfd *fds, unsigned long count, const timespec *timeout, const void *mask)

cdef extern from "sys/eventfd.h" nogil:
    const int EFD_CLOEXEC
    const int EFD_NONBLOCK
    int eventfd(unsigned int count, int flags)

cdef extern from "native/event.h" nogil:
    void event_signal(int event)
    void event_clear(int event)

cdef extern from "native/packet.h" nogil:
    bint packet_is_ip(const uint8_t *packet, size_t size)

cdef extern from "native/space.h" nogil:
    const uint32_t TUN_PACKET_MAX_SIZE
    const uint32_t TUN_PACKET_ALIGNMENT

    struct tun_ring:
        pass

    struct tun_packet:
        uint8_t data[1]

    uint64_t tun_ring_size(uint32_t capacity)

    enum ring_status:
        RING_OK
        RING_EMPTY
        RING_FULL
        RING_ENDED
        RING_CORRUPT

    bint ring_is_capacity(uint64_t capacity)
    uint32_t ring_span(uint32_t size)
    tun_packet *ring_packet_at(tun_ring *ring, uint32_t offset)

    struct ring_producer:
        tun_ring *ring
        uint32_t capacity
        uint32_t tail
        uint32_t reserved

    ring_status ring_producer_init(ring_producer *p, tun_ring *ring, uint32_t capacity)
    uint32_t ring_room(const ring_producer *p)
    ring_status ring_refresh_head(ring_producer *p)
    ring_status ring_reserve(ring_producer *p, uint32_t size, uint8_t **data)
    void ring_commit(ring_producer *p, uint32_t size)
    bint ring_submit(ring_producer *p)
    bint ring_consumer_waits(ring_producer *p)
    void ring_producer_end(ring_producer *p)

    struct ring_consumer:
        tun_ring *ring
        uint32_t capacity
        uint32_t head
        uint32_t next

    struct ring_view:
        uint8_t *data
        uint32_t size
        uint32_t end

    ring_status ring_consumer_init(ring_consumer *c, tun_ring *ring, uint32_t capacity)
    uint32_t ring_content(const ring_consumer *c)
    ring_status ring_refresh_tail(ring_consumer *c)
    ring_status ring_peek(ring_consumer *c, ring_view *view)
    void ring_release(ring_consumer *c, uint32_t end)
    ring_status ring_arm(ring_consumer *c)
    void ring_disarm(ring_consumer *c)
    void ring_consumer_end(ring_consumer *c)

    struct ring_space:
        uint32_t *producer_waits
        int event

    bint ring_arm_space(ring_producer *p, ring_space *space)
    void ring_disarm_space(ring_space *space)
    bint ring_producer_waits(const ring_space *space)

cdef extern from "sys/uio.h" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "native/impairment.h" nogil:
    struct impairment:
        uint64_t loss, duplicate, damage, reorder
        uint64_t delay, jitter
        uint64_t rate
        uint64_t limit
        uint64_t hold
        uint64_t seed

    const uint64_t IMPAIRMENT_NEVER

    struct impaired_counters:
        uint64_t lost
        uint64_t duplicated
        uint64_t damaged
        uint64_t held
        uint64_t overflowed

    struct impaired_queue:
        pass

    impaired_queue *impaired_create()
    void impaired_destroy(impaired_queue *queue)
    void impaired_set(impaired_queue *queue, const impairment *impairment)
    void impaired_put(impaired_queue *queue, const void *packet, uint32_t size, uint64_t now)
    Py_ssize_t impaired_take(impaired_queue *queue, uint64_t now, const iovec *pieces, int count)
    uint64_t impaired_due(const impaired_queue *queue)
    uint64_t impaired_drain(impaired_queue *queue)
    const impaired_counters *get_counters "impaired_counters"(const impaired_queue *queue)

cdef extern from "native/engine.h" nogil:
    const uint32_t VNET_HEADER_SIZE

    struct vnet_header:
        pass

    struct segmenter:
        pass

    bint segment_begin(segmenter *s, const vnet_header *vnet, const uint8_t *packet, uint32_t size)
    uint32_t segment_size(const segmenter *s)
    void segment_write(segmenter *s, uint8_t *to)

    struct host:
        int fd
        bint vnet
        uint32_t coalesces

    void host_init_tun(host *host, int fd, bint vnet, uint32_t coalesces)

    struct link:
        pass

    struct link_host:
        host host

    void host_init_link(link_host *host, link *in_, link *out)
    void link_host_set_up(link_host *host, bint up)
    link *link_create(uint32_t capacity)
    void link_destroy(link *link)
    uint64_t link_connect(link *link)
    void link_disconnect(link *link)
    int link_impair(link *link, const impairment *impairment)

    struct link_counters:
        uint64_t passed
        uint64_t overflowed
        uint64_t unplugged
        uint64_t drained
        impaired_counters impaired

    void link_read_counters(const link *link, link_counters *counters)
    uint64_t link_dropped(const link *link)

    enum engine_result:
        ENGINE_MORE
        ENGINE_IDLE
        ENGINE_BLOCKED
        ENGINE_OVER

    enum engine_end_ "engine_end":
        ENGINE_RUNNING
        ENGINE_CLOSED
        ENGINE_REMOVED
        ENGINE_CORRUPT

    struct engine_counters:
        uint64_t packets
        uint64_t bytes
        uint64_t large
        uint64_t invalid_head
        uint64_t too_big
        uint64_t not_ip
        uint64_t malformed
        uint64_t host_down
        uint64_t refused
        uint64_t no_memory

    struct engine:
        pass

    struct engine_offer:
        tun_ring *to_client
        tun_ring *to_host
        uint32_t to_client_capacity
        uint32_t to_host_capacity
        int send_event
        int receive_event
        ring_space *to_client_space
        ring_space *to_host_space
        uint32_t options
        uint64_t spin_ns
        bint foreign

    struct iovec:
        void *iov_base
        size_t iov_len

    int engine_wait_to_client(engine *engine, int stop, int64_t timeout_ns, unsigned budget,
                              engine_result *result)
    bint engine_forward(engine *engine, const iovec *packets, uint32_t count, uint32_t *numbers,
                        uint32_t *left)
    int engine_init(engine *engine, host *host, const engine_offer *offer)
    engine_result engine_step_to_client(engine *engine, unsigned budget, unsigned *moved)
    engine_result engine_step_to_host(engine *engine, unsigned budget, unsigned *moved)
    void engine_finish "engine_end"(engine *engine, engine_end_ reason)
    engine_end_ engine_end_reason(engine *engine)
    void engine_read_counters(engine *engine, engine_counters *to_client, engine_counters *to_host)
    uint64_t engine_wakeups(const engine *engine)
    int engine_start_threads(engine *engine, int stop_event)
    void engine_stop(engine *engine)
    void engine_destroy(engine *engine)


cdef extern from "native/guard.h" nogil:
    int guard_install_ "guard_install"()


def guard_install():
    cdef int error = guard_install_()
    if error:
        raise OSError(error, strerror(error).decode())


cdef int new_event() except -1:
    cdef int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
    if event < 0:
        PyErr_SetFromErrno(OSError)
    return event


cdef object raise_status(ring_status status):
    if status == RING_CORRUPT:
        raise RingCorrupt()
    raise SessionClosed(EndReason.DRIVER_ENDED)


cdef class Space:
    """By this a producer waits for room; see ``native/space.h``. Owns its event."""

    cdef ring_space space
    cdef uint32_t own
    cdef Py_buffer buffer  # of shared memory, where there is some
    cdef bint shared

    def __cinit__(self, memory=None, Py_ssize_t offset=0, int event=-1):
        self.space.event = -1
        self.space.producer_waits = &self.own
        if memory is not None:
            PyObject_GetBuffer(memory, &self.buffer, PyBUF_WRITABLE)
            self.shared = True
            if offset < 0 or offset % 4 or offset > self.buffer.len - 4:
                raise ValueError(f"no word of the memory begins at {offset}")
            self.space.producer_waits = <uint32_t *>(<uint8_t *>self.buffer.buf + offset)
        self.space.event = new_event() if event < 0 else fcntl(event, F_DUPFD_CLOEXEC, 0)
        if self.space.event < 0:
            PyErr_SetFromErrno(OSError)

    def __dealloc__(self):
        self.close()

    def close(self):
        cdef int event = self.space.event
        self.space.event = -1
        if event >= 0:
            close(event)
        self.space.producer_waits = &self.own  # a batch may be released later
        if self.shared:
            self.shared = False
            PyBuffer_Release(&self.buffer)

    def fileno(self):
        return self.space.event

    def signal(self):
        event_signal(self.space.event)

    def clear(self):
        event_clear(self.space.event)


cdef const char *UNSIGNED_BYTES = "B"


cdef void show(Py_buffer *buffer, uint8_t *data, Py_ssize_t size, int flags):
    """Fill all of a buffer but its owner: writable bytes."""
    buffer.buf = data
    buffer.len = size
    buffer.itemsize = 1
    buffer.readonly = 0
    buffer.ndim = 1
    buffer.format = NULL
    if flags & PyBUF_FORMAT:
        buffer.format = <char *>UNSIGNED_BYTES
    buffer.shape = &buffer.len if flags & PyBUF_ND else NULL
    buffer.strides = &buffer.itemsize if (flags & PyBUF_STRIDES) == PyBUF_STRIDES else NULL
    buffer.suboffsets = NULL
    buffer.internal = NULL


cdef class Mapping:
    """Shared memory, mapped without keeping the descriptor."""

    cdef void *data  # NULL: closed
    cdef Py_ssize_t size
    cdef Py_ssize_t exports

    def __cinit__(self, int fd, Py_ssize_t size):
        cdef void *data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
        if data == MAP_FAILED:
            PyErr_SetFromErrno(OSError)
        self.data, self.size = data, size

    def __dealloc__(self):
        if self.data != NULL:
            munmap(self.data, self.size)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if self.data == NULL:
            raise ValueError("the memory is not mapped any more")
        show(buffer, <uint8_t *>self.data, self.size, flags)
        buffer.obj = self
        self.exports += 1

    def __releasebuffer__(self, Py_buffer *buffer):
        self.exports -= 1

    def close(self):
        if self.exports:
            raise BufferError("the memory is in use")
        if self.data != NULL:
            munmap(self.data, self.size)
            self.data = NULL


# Engines and cursors look into it until their own end: the collector must not empty it before.
@cython.no_gc_clear
cdef class _Memory:
    """A ring's memory, held as long as anything looks into it."""

    cdef Py_buffer buffer
    cdef bint held

    def __cinit__(self, memory, uint64_t capacity):
        if not ring_is_capacity(capacity):
            raise ValueError(
                f"a ring's capacity is a power of two from 16 bytes to 64 MiB, not {capacity}"
            )
        PyObject_GetBuffer(memory, &self.buffer, PyBUF_SIMPLE | PyBUF_WRITABLE)
        self.held = True
        if <uint64_t>self.buffer.len != tun_ring_size(<uint32_t>capacity):
            size = self.buffer.len
            self.let_go()
            raise ValueError(
                f"a ring of capacity {capacity} takes {tun_ring_size(<uint32_t>capacity)} bytes "
                f"of memory, not {size}"
            )
        if <size_t>self.buffer.buf % 4:
            self.let_go()
            raise ValueError("a ring's memory is aligned to 4 bytes")

    def __dealloc__(self):
        self.let_go()

    cdef tun_ring *ring(self):
        return <tun_ring *>self.buffer.buf

    cdef void let_go(self):
        if self.held:
            self.held = False
            PyBuffer_Release(&self.buffer)


cdef class Producer:
    cdef ring_producer ring
    cdef _Memory memory
    cdef object event
    cdef int event_fd
    cdef Space space
    cdef bint ip_only
    cdef Py_ssize_t prefix  # bytes before each IP packet
    cdef bint closed
    cdef Slot slot

    def __cinit__(self, memory, capacity, event=None, Space space=None, *, ip_only=False,
                  Py_ssize_t prefix=0):
        self.memory = _Memory(memory, capacity)
        self.event = event
        self.event_fd = -1 if event is None else event.fileno()
        self.space = space
        self.ip_only = ip_only
        self.prefix = prefix
        self.closed = False
        if ring_producer_init(&self.ring, self.memory.ring(), capacity) != RING_OK:
            raise RingCorrupt()

    @property
    def capacity(self):
        return self.ring.capacity

    @property
    def room(self):
        self.check_usable()
        cdef ring_status status = ring_refresh_head(&self.ring)
        if status != RING_OK:
            raise_status(status)
        return ring_room(&self.ring)

    @property
    def staged(self):
        return (self.ring.reserved - self.ring.tail) & (self.ring.capacity - 1)

    @property
    def ended(self):
        return self.closed or ring_refresh_head(&self.ring) == RING_ENDED

    def check(self):
        self.check_usable()

    cdef int check_usable(self) except -1:
        if self.closed:
            raise SessionClosed(EndReason.CLOSED)
        if self.slot is not None:
            raise ConcurrencyError("a reserved slot is open: commit or leave it first")
        return 0

    cdef int check_size(self, Py_ssize_t size) except -1:
        if size > <Py_ssize_t>TUN_PACKET_MAX_SIZE:
            raise ValueError(f"a packet has at most {TUN_PACKET_MAX_SIZE} bytes, not {size}")
        if ring_span(<uint32_t>size) > self.ring.capacity - TUN_PACKET_ALIGNMENT:
            raise ValueError(
                f"a packet of {size} bytes never fits a ring of {self.ring.capacity} bytes"
            )
        return 0

    cdef int check_content(self, const uint8_t *data, Py_ssize_t size) except -1:
        if not self.ip_only:
            return 0
        size -= self.prefix
        if size < 0 or not packet_is_ip(data + self.prefix, size):
            raise ValueError(
                (f"not an offload header and an IP packet: " if self.prefix else "not an IP packet: ")
                + f"{max(size, 0)} bytes, "
                + (f"version {data[self.prefix] >> 4}" if size > 0 else "empty")
                + "; IPv4 has at least 20 bytes and IPv6 at least 40"
            )
        return 0

    cdef bint put(self, const uint8_t *data, Py_ssize_t size) except -1:
        cdef uint8_t *slot
        cdef ring_status status
        self.check_size(size)
        self.check_content(data, size)
        status = ring_reserve(&self.ring, <uint32_t>size, &slot)
        if status == RING_OK:
            memcpy(slot, data, size)
            ring_commit(&self.ring, <uint32_t>size)
            return True
        if status == RING_FULL:
            return False
        raise_status(status)

    cpdef bint push(self, packet) except -1:
        cdef Py_buffer buffer
        if self.prefix:
            packet = getattr(packet, "data", packet)  # an OffloadPacket's header and packet
        if type(packet) is bytes:
            self.check_usable()
            return self.put(<const uint8_t *><char *>packet, len(<bytes>packet))
        PyObject_GetBuffer(packet, &buffer, PyBUF_SIMPLE)
        try:
            self.check_usable()
            return self.put(<const uint8_t *>buffer.buf, buffer.len)
        finally:
            PyBuffer_Release(&buffer)

    def push_many(self, packets, Py_ssize_t start=0):
        cdef Py_ssize_t done = start
        cdef Batch batch
        if isinstance(packets, Batch):
            self.check_usable()
            batch = packets
            batch.check_open()
            while done < batch.span.count:
                if not self.put(batch.data(done), batch.span.slots[done].size):
                    break
                done += 1
            return done - start
        for done in range(start, len(packets)):
            if not self.push(packets[done]):
                return done - start
        return len(packets) - start

    cpdef void submit(self):
        if not self.closed and ring_submit(&self.ring) and ring_consumer_waits(&self.ring):
            event_signal(self.event_fd)

    def write(self, packet):
        if not self.push(packet):
            return False
        self.submit()
        return True

    def reserve(self, Py_ssize_t size):
        cdef uint8_t *data
        cdef ring_status status
        cdef Slot slot
        self.check_usable()
        if size < 1:
            raise ValueError(f"a slot has at least 1 byte, not {size}")
        self.check_size(size)
        status = ring_reserve(&self.ring, <uint32_t>size, &data)
        if status == RING_FULL:
            return None
        if status != RING_OK:
            raise_status(status)
        slot = Slot.__new__(Slot)
        slot.producer = self
        slot.data = data
        slot.size = size
        slot.open = True
        slot.view = PyMemoryView_FromObject(slot)
        self.slot = slot
        return slot

    def arm(self):
        if self.space is None or self.closed:
            return False
        return ring_arm_space(&self.ring, &self.space.space)

    def disarm(self):
        if self.space is not None:
            ring_disarm_space(&self.space.space)

    def end(self):
        if not self.closed:
            ring_producer_end(&self.ring)
            if self.event_fd >= 0:
                event_signal(self.event_fd)

    def close(self):
        if not self.closed:
            self.closed = True
            self.event = None
            if self.slot is None:
                self.memory.let_go()


# Used by its own end, or by a view's: the collector must not empty it before.
@cython.no_gc_clear
cdef class Slot:
    cdef Producer producer
    cdef uint8_t *data
    cdef Py_ssize_t size
    cdef int exports
    cdef bint open
    cdef readonly object view

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if not self.open:
            raise BufferError("this slot was committed or left")
        show(buffer, self.data, self.size, flags)
        buffer.obj = self
        self.exports += 1

    def __releasebuffer__(self, Py_buffer *buffer):
        self.exports -= 1
        if not self.open and not self.exports:
            self.leave()

    cdef void leave(self):
        """The producer goes on: nobody can write here any more."""
        cdef Producer producer = self.producer
        if producer is not None and producer.slot is self:
            self.producer = None
            producer.slot = None
            if producer.closed and producer.memory is not None:
                producer.memory.let_go()

    def commit(self, length=None):
        cdef Py_ssize_t size = self.size if length is None else length
        if not self.open:
            raise ValueError("this slot was committed or left already")
        if self.producer.closed:
            raise SessionClosed(EndReason.CLOSED)
        if not 0 < size <= self.size:
            raise ValueError(f"the slot has {self.size} bytes: cannot commit {size}")
        self.producer.check_content(self.data, size)
        self.view.release()
        if self.exports:
            raise BufferError("a slice of the slot's view is still in use")
        self.open = False
        ring_commit(&self.producer.ring, <uint32_t>size)
        self.leave()

    def abandon(self):
        if self.open:
            self.open = False
            try:
                self.view.release()
            except BufferError:
                pass
            if not self.exports:
                self.leave()


cdef struct slot_t:
    uint32_t offset  # of the packet in the ring
    uint32_t size
    uint32_t exports

cdef struct span_t:
    # Consecutive packets that one batch holds, and those copied out after them.
    span_t *later
    uint32_t start
    uint32_t end
    bint released
    Py_ssize_t first     # once released, the first slot that may be in use still
    Py_ssize_t exported  # slots with a view on them
    Py_ssize_t count
    Py_ssize_t room
    slot_t slots[1]


# Used by its own end, or by a view's: the collector must not empty it before.
@cython.no_gc_clear
cdef class Consumer:
    cdef ring_consumer ring
    cdef _Memory memory
    cdef object event
    cdef Space space
    cdef object wrap  # what each packet is handed out as; None: as it is
    cdef bint closed
    cdef span_t *oldest
    cdef span_t *newest
    cdef span_t *spare  # the last one freed: the next batch needs one like it
    cdef readonly Py_ssize_t pinned

    def __dealloc__(self):
        free(self.spare)

    def __cinit__(self, memory, capacity, event=None, Space space=None, *, wrap=None):
        self.memory = _Memory(memory, capacity)
        self.event = event
        self.space = space
        self.wrap = wrap
        self.closed = False
        if ring_consumer_init(&self.ring, self.memory.ring(), capacity) != RING_OK:
            raise RingCorrupt()

    @property
    def capacity(self):
        return self.ring.capacity

    @property
    def content(self):
        if self.closed:
            return 0
        ring_refresh_tail(&self.ring)
        return ring_content(&self.ring)

    @property
    def more(self):
        return ring_content(&self.ring) != 0

    cdef int check_usable(self) except -1:
        if self.closed:
            raise SessionClosed(EndReason.CLOSED)
        return 0

    cdef void give_back(self, uint32_t end):
        ring_release(&self.ring, end)
        if self.space is not None and ring_producer_waits(&self.space.space):
            event_signal(self.space.space.event)

    cpdef object pop(self):
        cdef ring_view view
        cdef ring_status status
        self.check_usable()
        status = ring_peek(&self.ring, &view)
        if status == RING_EMPTY:
            return None
        if status != RING_OK:
            raise_status(status)
        packet = PyBytes_FromStringAndSize(<char *>view.data, view.size)
        if self.newest == NULL:
            self.give_back(view.end)
        else:
            self.newest.end = view.end
        return packet if self.wrap is None else self.wrap(packet)

    def peek_many(self, Py_ssize_t max_packets=256):
        cdef ring_view view
        cdef ring_status status
        cdef span_t *span
        cdef slot_t *slot
        cdef Py_ssize_t limit, count = 0
        cdef ring_consumer ring
        cdef Batch batch
        self.check_usable()
        if max_packets < 1:
            raise ValueError(f"max_packets is at least 1, not {max_packets}")
        status = RING_OK if ring_content(&self.ring) else ring_refresh_tail(&self.ring)
        if status == RING_EMPTY:
            return None
        if status != RING_OK:
            raise_status(status)
        limit = min(max_packets, <Py_ssize_t>ring_content(&self.ring) // 4)
        span = self.new_span(limit)
        span.start = self.ring.next
        ring = self.ring  # a copy, which the compiler can keep in registers
        while count < limit and ring_content(&ring):  # what comes meanwhile is the next batch's
            slot = &span.slots[count]
            slot.offset = ring.next
            slot.exports = 0
            status = ring_peek(&ring, &view)
            if status != RING_OK:
                break
            slot.size = view.size
            count += 1
        self.ring = ring
        if not count:
            self.free_span(span)
            raise_status(status)
        span.later = NULL
        span.end = self.ring.next
        span.released = False
        span.first = 0
        span.exported = 0
        span.count = count
        if self.newest == NULL:
            self.oldest = span
        else:
            self.newest.later = span
        self.newest = span
        batch = Batch.__new__(Batch)
        batch.consumer = self
        batch.span = span
        return batch

    cdef span_t *new_span(self, Py_ssize_t slots) except NULL:
        cdef span_t *span = self.spare
        self.spare = NULL
        if span == NULL or span.room < slots:
            free(span)
            span = <span_t *>malloc(sizeof(span_t) + slots * sizeof(slot_t))
            if span == NULL:
                raise MemoryError()
            span.room = slots
        return span

    cdef void free_span(self, span_t *span):
        free(self.spare)
        self.spare = span

    cdef void advance(self):
        """Give back, in order, all that nobody uses any more."""
        cdef span_t *span
        cdef uint32_t end = self.ring.head
        while self.oldest != NULL:
            span = self.oldest
            if not span.released:
                end = span.start
                break
            if span.exported:
                while not span.slots[span.first].exports:
                    span.first += 1
                end = span.slots[span.first].offset
                break
            end = span.end
            self.oldest = span.later
            if self.oldest == NULL:
                self.newest = NULL
            self.free_span(span)
        if self.closed:
            if self.oldest == NULL:
                self.memory.let_go()
        elif end != self.ring.head:
            self.give_back(end)

    def arm(self):
        self.check_usable()
        return ring_arm(&self.ring) == RING_EMPTY

    def disarm(self):
        if not self.closed:
            ring_disarm(&self.ring)

    def wait(self, int stop, timeout=None):
        cdef pollfd fds[2]
        cdef timespec limit
        cdef int ready, error
        cdef int64_t limit_ns = 0 if timeout is None else <int64_t>(max(0.0, timeout) * 1e9)
        if not self.arm():
            self.disarm()
            return True
        fds[0].fd = self.event.fileno()
        fds[1].fd = stop
        fds[0].events = fds[1].events = POLLIN
        limit.tv_sec, limit.tv_nsec = limit_ns // 1000000000, limit_ns % 1000000000
        with nogil:
            ready = ppoll(fds, 2, NULL if timeout is None else &limit, NULL)
            error = errno
        self.disarm()
        if ready < 0:
            if error != EINTR:
                raise OSError(error, strerror(error).decode())
            PyErr_CheckSignals()
        if ready > 0 and fds[0].revents:
            event_clear(fds[0].fd)
        return ready != 0

    def end(self):
        if not self.closed:
            ring_consumer_end(&self.ring)

    def close(self):
        if not self.closed:
            self.closed = True
            self.event = None
            if self.oldest == NULL:
                self.memory.let_go()


# Used by its own end, or by a view's: the collector must not empty it before.
@cython.no_gc_clear
cdef class Batch:
    """Packets in the order of the ring, as writable views into it, until `release`.

    Releasing it releases the views that it handed out. While a slice of one, or an array made from
    it, lives, its slot is pinned: the ring does not move past it, its bytes stay, and a
    ``ResourceWarning`` says so.
    """

    cdef Consumer consumer
    cdef span_t *span  # NULL: released
    cdef Py_ssize_t exporting
    cdef list views  # weak: a batch that is dropped goes at once, and its slots with it

    def __cinit__(self):
        self.exporting = -1

    def __dealloc__(self):
        if self.span != NULL:
            self.span.released = True
            self.consumer.advance()

    cdef int check_open(self) except -1:
        if self.span == NULL or self.span.released:
            raise ValueError("this batch was released")
        return 0

    @property
    def whole(self):
        return self.consumer is not None and self.consumer.wrap is not None

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        cdef slot_t *slot
        if self.exporting < 0 or self.span == NULL or self.span.released:
            raise BufferError("a batch is no buffer; its elements are")
        slot = &self.span.slots[self.exporting]
        show(buffer, self.data(self.exporting), slot.size, flags)
        buffer.obj = self
        buffer.internal = <void *>self.exporting
        if not slot.exports:
            self.span.exported += 1
        slot.exports += 1

    def __releasebuffer__(self, Py_buffer *buffer):
        cdef slot_t *slot = &self.span.slots[<Py_ssize_t>buffer.internal]
        slot.exports -= 1
        if not slot.exports:
            self.span.exported -= 1
            if self.span.released:
                self.consumer.pinned -= 1
                self.settle()

    cdef void settle(self):
        """After the release: forget the span once none of its slots is in use."""
        if not self.span.exported:
            self.span = NULL
        self.consumer.advance()

    cdef uint8_t *data(self, Py_ssize_t i):
        return ring_packet_at(self.consumer.ring.ring, self.span.slots[i].offset).data

    cdef int hold(self, Py_buffer *buffer) except -1:
        """Keep the memory of all slots, whoever releases the batch meanwhile."""
        self.exporting = 0
        try:
            PyObject_GetBuffer(self, buffer, PyBUF_SIMPLE)
        finally:
            self.exporting = -1
        return 0

    cdef object view(self, Py_ssize_t i):
        self.check_open()
        self.exporting = i
        try:
            view = PyMemoryView_FromObject(self)
        finally:
            self.exporting = -1
        if self.views is None:
            self.views = []
        self.views.append(PyWeakref_NewRef(view, None))
        return view

    cdef object element(self, Py_ssize_t i):
        view = self.view(i)
        return view if self.consumer.wrap is None else self.consumer.wrap(view)

    def __len__(self):
        self.check_open()
        return self.span.count

    def __getitem__(self, index):
        cdef Py_ssize_t i
        cdef Py_ssize_t count = len(self)
        if isinstance(index, slice):
            return [self.element(i) for i in range(*index.indices(count))]
        i = index
        if i < 0:
            i += count
        if not 0 <= i < count:
            raise IndexError("no such packet in the batch")
        return self.element(i)

    def __repr__(self):
        if self.span == NULL or self.span.released:
            return "<Batch released>"
        return f"<Batch of {self.span.count} packets>"

    def __iter__(self):
        self.check_open()
        return _BatchIterator.__new__(_BatchIterator, self)

    def __enter__(self):
        self.check_open()
        return self

    def __exit__(self, *error):
        self.release()

    def release(self):
        """Give the packets' room back to the ring. More than once is fine."""
        cdef Py_ssize_t pinned
        if self.span == NULL or self.span.released:
            return
        views, self.views = self.views, None
        if views is not None and self.span.exported:
            for reference in views:
                view = <object>PyWeakref_GetObject(reference)
                if view is not None:
                    try:
                        view.release()
                    except BufferError:
                        pass
            view = None
            # Whatever ran meanwhile may have released the batch already.
            if self.span == NULL or self.span.released:
                return
        self.span.released = True
        pinned = self.span.exported
        self.consumer.pinned += pinned
        self.settle()
        if pinned:
            PyErr_WarnEx(
                ResourceWarning,
                b"a slice of a packet's view outlives its batch: its slot stays pinned, "
                b"and the ring does not move past it",
                1,
            )


cdef class _BatchIterator:
    cdef Batch batch
    cdef Py_ssize_t next

    def __cinit__(self, Batch batch not None):
        self.batch = batch

    def __iter__(self):
        return self

    def __next__(self):
        self.batch.check_open()
        if self.next == self.batch.span.count:
            raise StopIteration
        element = self.batch.element(self.next)
        self.next += 1
        return element


cdef impairment as_impairment(terms) except *:
    return impairment(
        loss=terms.loss, duplicate=terms.duplicate, damage=terms.damage, reorder=terms.reorder,
        delay=terms.delay, jitter=terms.jitter, rate=terms.rate, limit=terms.limit,
        hold=terms.hold, seed=terms.seed,
    )


cdef class ImpairedQueue:
    cdef impaired_queue *queue

    def __cinit__(self, terms):
        self.queue = impaired_create()
        if self.queue == NULL:
            raise MemoryError()
        self.set(terms)

    def __dealloc__(self):
        impaired_destroy(self.queue)

    def set(self, terms):
        cdef impairment wanted = as_impairment(terms)
        impaired_set(self.queue, &wanted)

    def put(self, bytes packet not None, uint64_t now):
        if not 1 <= len(packet) <= TUN_PACKET_MAX_SIZE:
            raise ValueError(f"a packet has 1 to {TUN_PACKET_MAX_SIZE} bytes, not {len(packet)}")
        impaired_put(self.queue, <const char *>packet, <uint32_t>len(packet), now)

    def take(self, uint64_t now):
        cdef bytearray packet = bytearray(TUN_PACKET_MAX_SIZE)
        cdef iovec piece = iovec(iov_base=<char *>packet, iov_len=TUN_PACKET_MAX_SIZE)
        cdef Py_ssize_t size = impaired_take(self.queue, now, &piece, 1)
        return None if size < 0 else bytes(packet[:size])

    @property
    def due(self):
        cdef uint64_t due = impaired_due(self.queue)
        return None if due == IMPAIRMENT_NEVER else due

    def drain(self):
        return impaired_drain(self.queue)

    @property
    def counters(self):
        return get_counters(self.queue)[0]


def cut(bytes packet not None):
    """The ordinary packets that a large one stands for; see ``_native.pyi``."""
    cdef segmenter segments
    cdef vnet_header header
    cdef const uint8_t *data = <const uint8_t *><char *>packet
    cdef Py_ssize_t size = len(packet) - <Py_ssize_t>VNET_HEADER_SIZE
    if size < 0 or not packet_is_ip(data + VNET_HEADER_SIZE, size):
        raise ValueError(f"not an offload header and an IP packet: {len(packet)} bytes")
    memcpy(&header, data, sizeof(header))
    if size > 0xFFFF or not segment_begin(&segments, &header, data + VNET_HEADER_SIZE, size):
        raise ValueError("the offload header does not fit the packet")
    found = []
    while segment_size(&segments):
        segment = PyBytes_FromStringAndSize(NULL, segment_size(&segments))
        segment_write(&segments, <uint8_t *><char *>segment)
        found.append(segment)
    return found


cdef class Link:
    cdef link *link

    def __cinit__(self, uint64_t capacity):
        if not ring_is_capacity(capacity):
            raise ValueError(f"a link's capacity is a power of two from 16 bytes, not {capacity}")
        self.link = link_create(<uint32_t>capacity)
        if self.link == NULL:
            PyErr_SetFromErrno(OSError)

    def __dealloc__(self):
        link_destroy(self.link)

    def connect(self):
        return link_connect(self.link)

    def disconnect(self):
        link_disconnect(self.link)

    def impair(self, terms):
        cdef impairment wanted = as_impairment(terms)
        cdef int error = link_impair(self.link, &wanted)
        if error:
            raise OSError(error, strerror(error).decode())

    @property
    def counters(self):
        cdef link_counters counters
        link_read_counters(self.link, &counters)
        return {
            "passed": counters.passed,
            "unplugged": counters.unplugged,
            "drained": counters.drained,
            **counters.impaired,
            "overflowed": counters.overflowed + counters.impaired.overflowed,
        }

    @property
    def dropped(self):
        return link_dropped(self.link)


cdef class Host:
    cdef host *pointer

    def fileno(self):
        return -1 if self.pointer == NULL else self.pointer.fd


cdef class TunHost(Host):
    cdef host host

    def __cinit__(self, int fd, bint vnet=False, uint32_t coalesces=0):
        self.host.fd = -1
        fd = fcntl(fd, F_DUPFD_CLOEXEC, 0)
        if fd < 0:
            PyErr_SetFromErrno(OSError)
        host_init_tun(&self.host, fd, vnet, coalesces)
        self.pointer = &self.host

    @property
    def coalesces(self):
        return self.host.coalesces

    def __dealloc__(self):
        if self.host.fd >= 0:
            close(self.host.fd)


# An engine's threads use both links until its own end.
@cython.no_gc_clear
cdef class LinkHost(Host):
    cdef link_host host
    cdef Link incoming
    cdef Link outgoing

    def __cinit__(self, Link incoming not None, Link outgoing not None):
        self.incoming = incoming
        self.outgoing = outgoing
        host_init_link(&self.host, incoming.link, outgoing.link)
        self.pointer = &self.host.host

    def set_up(self, bint up):
        link_host_set_up(&self.host, up)


cdef dict counters_as_dict(const engine_counters *counters):
    return {
        "packets": counters.packets,
        "bytes": counters.bytes,
        "large": counters.large,
        "invalid_head": counters.invalid_head,
        "too_big": counters.too_big,
        "not_ip": counters.not_ip,
        "malformed": counters.malformed,
        "host_down": counters.host_down,
        "refused": counters.refused,
        "no_memory": counters.no_memory,
    }


# Used by its own end, or by a view's: the collector must not empty it before.
@cython.no_gc_clear
cdef class Engine:
    cdef engine *engine
    cdef Host host
    cdef _Memory to_client
    cdef _Memory to_host
    cdef Space to_client_space
    cdef Space to_host_space
    cdef int stop_event

    def __cinit__(self, Host host not None, to_client, to_client_capacity, to_host,
                  to_host_capacity, int send_event, int receive_event, *,
                  to_client_space=None, to_host_space=None, uint32_t options=0,
                  double spin=0.0, bint foreign=False):
        cdef engine_offer offer
        self.stop_event = -1
        if host.pointer == NULL:
            raise TypeError("a host is a TunHost or a LinkHost")
        self.host = host
        self.to_client = _Memory(to_client, to_client_capacity)
        self.to_host = _Memory(to_host, to_host_capacity)
        self.to_client_space = to_client_space
        self.to_host_space = to_host_space
        offer.to_client = self.to_client.ring()
        offer.to_host = self.to_host.ring()
        offer.to_client_capacity = to_client_capacity
        offer.to_host_capacity = to_host_capacity
        offer.send_event = send_event
        offer.receive_event = receive_event
        offer.to_client_space = NULL
        offer.to_host_space = NULL
        if self.to_client_space is not None:
            offer.to_client_space = &self.to_client_space.space
        if self.to_host_space is not None:
            offer.to_host_space = &self.to_host_space.space
        offer.options = options
        offer.spin_ns = <uint64_t>(max(0.0, spin) * 1e9)
        offer.foreign = foreign
        self.engine = <engine *>calloc(1, sizeof(engine))
        if self.engine == NULL:
            raise MemoryError()
        error = engine_init(self.engine, host.pointer, &offer)
        if error:
            free(self.engine)
            self.engine = NULL
            raise OSError(error, strerror(error).decode())

    def __dealloc__(self):
        if self.engine != NULL:
            self.close()
            engine_destroy(self.engine)
            free(self.engine)

    def close(self):
        if self.engine == NULL:
            return
        with nogil:
            engine_stop(self.engine)
        if self.stop_event >= 0:
            close(self.stop_event)
            self.stop_event = -1
        self.to_client.let_go()
        self.to_host.let_go()
        self.host = None

    def step_to_client(self, unsigned budget):
        cdef engine_result result
        cdef unsigned moved
        if self.engine == NULL:
            return ENGINE_OVER
        with nogil:
            result = engine_step_to_client(self.engine, budget, &moved)
        return result

    def wait_to_client(self, unsigned budget, int stop, timeout=None):
        cdef engine_result result = ENGINE_OVER
        cdef int64_t timeout_ns = -1 if timeout is None else <int64_t>(max(0.0, timeout) * 1e9)
        cdef int error
        if self.engine == NULL:
            return ENGINE_OVER
        with nogil:
            error = engine_wait_to_client(self.engine, stop, timeout_ns, budget, &result)
        if error == EINTR:
            PyErr_CheckSignals()
            return ENGINE_IDLE
        if error == ETIMEDOUT:
            return None
        if error:
            raise OSError(error, strerror(error).decode())
        return result

    def step_to_host(self, unsigned budget):
        cdef engine_result result
        cdef unsigned moved
        if self.engine == NULL:
            return ENGINE_OVER
        with nogil:
            result = engine_step_to_host(self.engine, budget, &moved)
        return result

    def forward(self, Batch batch not None):
        cdef Py_ssize_t i, count = len(batch)
        cdef uint32_t left = 0
        cdef bint done
        cdef iovec *packets
        cdef uint32_t *numbers
        cdef Py_buffer held
        if self.engine == NULL or not count:
            return None
        packets = <iovec *>malloc(count * (sizeof(iovec) + sizeof(uint32_t)))
        if packets == NULL:
            raise MemoryError()
        numbers = <uint32_t *>(packets + count)
        try:
            for i in range(count):
                packets[i].iov_base = batch.data(i)
                packets[i].iov_len = batch.span.slots[i].size
            batch.hold(&held)
            with nogil:
                done = engine_forward(self.engine, packets, <uint32_t>count, numbers, &left)
            PyBuffer_Release(&held)
            return [numbers[i] for i in range(left)] if done else None
        finally:
            free(packets)

    def start_threads(self):
        if self.engine == NULL or engine_end_reason(self.engine) != ENGINE_RUNNING:
            raise SessionClosed(EndReason.CLOSED)
        if self.stop_event >= 0:
            raise ConcurrencyError("the engine's threads were started already")
        self.stop_event = new_event()
        error = engine_start_threads(self.engine, self.stop_event)
        if error:
            raise OSError(error, f"cannot start the engine's threads: {strerror(error).decode()}")

    def abandon(self):
        self.host = None
        self.engine = NULL  # not freed: the threads are not here, and a lock may be held for ever
        self.to_client.let_go()
        self.to_host.let_go()

    def end(self, int reason):
        if self.engine == NULL:
            return
        with nogil:
            engine_finish(self.engine, <engine_end_>reason)

    @property
    def end_reason(self):
        return ENGINE_CLOSED if self.engine == NULL else engine_end_reason(self.engine)

    @property
    def wakeups(self):
        return 0 if self.engine == NULL else engine_wakeups(self.engine)

    def counters(self):
        cdef engine_counters to_client, to_host
        if self.engine == NULL:
            raise SessionClosed(EndReason.FORKED)
        engine_read_counters(self.engine, &to_client, &to_host)
        return counters_as_dict(&to_client), counters_as_dict(&to_host)


Sequence.register(Batch)
