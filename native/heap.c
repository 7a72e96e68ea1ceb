/* torch's caching allocator of CUDA memory, compiled: what `autotune/simulate/allocator.py` says, step by step.

   That one is the reference: it names the functions of torch's source, and tests hold the two to the same bytes. Left out here
   are streams that wait for one another, and what was requested of a block. */

#define Py_LIMITED_API 0x030b0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>

#include "allocator.h"

enum { MALLOC, RELEASE, HOLD, ONCE, EMPTY, RESET, CODES }; /* as `Code` in autotune/simulate/heap.py */

static int widen(Heap *h, int table, int64_t slot)
{
    if (slot < h->n.slots[table]) return 0;
    int64_t slots = 2 * slot + 64;
    if (grow((void **)&h->live[table], slots, sizeof(int32_t))) return -1;
    for (int64_t i = h->n.slots[table]; i < slots; i++) h->live[table][i] = NONE;
    h->n.slots[table] = (int32_t)slots;
    return 0;
}

static int step(Heap *h, int code, int table, int stream, int64_t slot, int64_t size)
{
    int32_t block = NONE;
    int ended = DONE;
    switch (code) {
    case ONCE:
    case MALLOC:
        if (size <= 0) return DONE;
        if (widen(h, table, slot)) return NO_ROOM;
        if (code == ONCE && h->live[table][slot] != NONE) return DONE;
        ended = allocate(h, size, stream, &block);
        if (ended == DONE) h->live[table][slot] = block;
        return ended;
    case RELEASE:
        if (slot >= h->n.slots[table] || h->live[table][slot] == NONE) return DONE;
        let_go(h, h->live[table][slot]);
        h->live[table][slot] = NONE;
        return DONE;
    case HOLD:
        if (size <= 0) return DONE;
        ended = allocate(h, size, stream, &block);
        if (ended == DONE) let_go(h, block);
        return ended;
    case EMPTY: return empty(h) ? NO_ROOM : DONE;
    default:
        h->n.peak_allocated = h->n.allocated;
        h->n.peak_reserved = h->n.reserved;
        return DONE;
    }
}

static void discard(Heap *h)
{
    for (int p = 0; p < POOLS; p++) {
        free(h->pools[p].free.ids);
        free(h->pools[p].unmapped.ids);
    }
    for (int t = 0; t < TABLES; t++) free(h->live[t]);
    free(h->blocks);
    free(h->spare);
}

/* The Python object */

typedef struct {
    PyObject_HEAD
    Heap heap;
} Object;

static PyObject *play(Object *self, PyObject *program)
{
    Py_buffer view;
    if (PyObject_GetBuffer(program, &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) < 0) return NULL;
    const int64_t *row = view.buf;
    Py_ssize_t row_bytes = 3 * sizeof(int64_t), rows = view.len / row_bytes, at = 0;
    int ended = DONE, known = view.itemsize == sizeof(int64_t) && view.len % row_bytes == 0;
    for (; known && ended == DONE && at < rows; at++, row += 3) {
        int64_t code = row[0] & 7, table = row[0] >> 3 & 1, stream = row[0] >> 4;
        known = code < CODES && stream >= 0 && stream < STREAMS;
        known = known && row[1] >= 0 && row[1] < MOST_SLOTS && row[2] >= 0 && row[2] < LARGEST;
        if (known) ended = step(&self->heap, (int)code, (int)table, (int)stream, row[1], row[2]);
    }
    PyBuffer_Release(&view);
    if (!known) return PyErr_Format(PyExc_ValueError, "row %zd is not an instruction", at ? at - 1 : 0);
    if (ended == NO_ROOM) return PyErr_NoMemory();
    return PyLong_FromSsize_t(ended == FULL ? at - 1 : NONE);
}

static PyObject *create(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"large_segment_bytes", "max_split_bytes", "max_non_split_bytes", "expandable",
                            "threshold", "limit_bytes", NULL};
    Numbers n = {.next_address = FIRST_ADDRESS};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "LLLpdL", names, &n.large_segment, &n.max_split, &n.max_non_split,
                                     &n.expandable, &n.threshold, &n.limit))
        return NULL;
    if (n.large_segment <= MIN_LARGE || n.large_segment > LARGEST / PAGES)
        return PyErr_Format(PyExc_ValueError, "a large segment of %lld bytes", (long long)n.large_segment);
    Object *self = (Object *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0); /* zeroed */
    if (self) self->heap.n = n;
    return (PyObject *)self;
}

static void destroy(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    discard(&((Object *)self)->heap);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyObject *figure(PyObject *self, void *offset)
{
    return PyLong_FromLongLong(*(int64_t *)((char *)self + (uintptr_t)offset));
}

#define FIGURE(name, field, doc) {name, figure, NULL, doc, (void *)(uintptr_t)offsetof(Object, heap.n.field)}

static PyGetSetDef figures[] = {
    FIGURE("allocated_bytes", allocated, "Blocks handed out."),
    FIGURE("peak_allocated_bytes", peak_allocated, "The most since the start or RESET."),
    FIGURE("reserved_bytes", reserved, "Segments: what is taken from the card."),
    FIGURE("peak_reserved_bytes", peak_reserved, "The most since the start or RESET."),
    FIGURE("retries", retries, "How often everything cached had to be given back to go on."),
    {NULL},
};

static PyMethodDef methods[] = {
    {"play", (PyCFunction)play, METH_O, "Runs rows of (code, slot, bytes); the row that the limit ended, or -1."},
    {NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, create},     {Py_tp_dealloc, destroy}, {Py_tp_methods, methods},
    {Py_tp_getset, figures}, {Py_tp_doc, "torch's caching allocator, compiled."}, {0, NULL},
};

static PyType_Spec spec = {"autotune.simulate._heap.Heap", sizeof(Object), 0, Py_TPFLAGS_DEFAULT, slots};

static int fill(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, NULL);
    int failed = !type || PyModule_AddObjectRef(module, "Heap", type);
    Py_XDECREF(type);
    return failed ? -1 : 0;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, fill}, {0, NULL}};

static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_heap", NULL, 0, NULL, module_slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__heap(void) { return PyModuleDef_Init(&definition); }
