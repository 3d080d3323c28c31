/* Cuts the JSON text of a batch into its values, without the objects in between (batch_text.py says what is known).

What is not of the usual form (json_scan.h) is answered with None: the general code looks at it. */

#include "../json_scan.h"

#define MAX_DEPTH 200 /* as in batch_validation.py */
#define LONG_TEXT 262144 /* bytes of an element, or of a value in a list, that may hold only so many values: parsing.py */

enum { SESSION, MESSAGE, PART, DIFF, MODEL, KINDS };

static const char *const texts[KINDS] = {"session", "message", "part", "session_diff", "model"};
static PyObject *names[KINDS], *empty; /* as long as the process */

#define ID 0
#define PROVIDER 1
static const Member wanted[2] = {{"\"id\"", 4, {NULL, 0}}, {"\"providerID\"", 12, {NULL, 0}}};

/* The type of an element, and what is around it up to its data; -1: it is not known. */
static int
read_kind(Scan *s)
{
    if (!SCAN_TEXT(s, "{\"type\":\""))
        return -1;
    for (int kind = 0; kind < KINDS; kind++) {
        Py_ssize_t length = (Py_ssize_t)strlen(texts[kind]);
        if (s->end - s->at > length && s->at[length] == '"' && memcmp(s->at, texts[kind], length) == 0) {
            s->at += length + 1;
            return SCAN_TEXT(s, ",\"data\":") ? kind : -1;
        }
    }
    return -1;
}

static inline int
is_text(const Span *value)
{
    return value->length > 0 && *value->at == '"';
}

static PyObject *
bytes_of(const Span *span)
{
    return PyBytes_FromStringAndSize((const char *)span->at, span->length);
}

/* The key of a model: [provider or null, id]. */
static PyObject *
model_key(const Span *provider, const Span *id)
{
    Span null = {(const unsigned char *)"null", 4};
    const Span *first = is_text(provider) ? provider : &null;
    PyObject *key = PyBytes_FromStringAndSize(NULL, first->length + id->length + 3);
    if (key == NULL)
        return NULL;
    char *to = PyBytes_AS_STRING(key);
    *to++ = '[';
    memcpy(to, first->at, first->length);
    to += first->length;
    *to++ = ',';
    memcpy(to, id->at, id->length);
    to[id->length] = ']';
    return key;
}

/* Adds (key, body) of the value that is next to a list; returns the bytes of both, or -1. */
static Py_ssize_t
add_value(Scan *s, int kind, PyObject *values)
{
    Span body = {s->at, 0};
    Member members[2];
    memcpy(members, wanted, sizeof(members));
    if (kind == DIFF) {
        if (!scan_value(s, 0))
            return -1;
    } else if (!scan_char(s, '{') || !scan_object(s, 0, members, kind == MODEL ? 2 : kind == SESSION ? 0 : 1))
        return -1;
    body.length = s->at - body.at;
    const Span *id = &members[ID].value;
    PyObject *key;
    if (kind == SESSION || kind == DIFF)
        key = Py_NewRef(empty);
    else if (!is_text(id) || id->length == 2)
        return -1;
    else
        key = kind == MODEL ? model_key(&members[PROVIDER].value, id) : bytes_of(id);
    PyObject *text = key == NULL ? NULL : bytes_of(&body);
    Py_ssize_t size = text == NULL ? -1 : PyBytes_GET_SIZE(key) + body.length;
    PyObject *value = text == NULL ? NULL : PyTuple_Pack(2, key, text);
    Py_XDECREF(key);
    Py_XDECREF(text);
    if (value == NULL || PyList_Append(values, value) < 0)
        size = -1;
    Py_XDECREF(value);
    return size;
}

/* What has been gathered: groups of values, of which the last may get more. */
typedef struct {
    PyObject *groups; /* (name, values, bytes of them) of each; of the last, the bytes are put in when it is done */
    int kind;         /* of the last; KINDS: there is none */
    Py_ssize_t size;
    Py_ssize_t room, most;
} Gathered;

static int
end_group(Gathered *g)
{
    if (g->kind == KINDS)
        return 1;
    PyObject *size = PyLong_FromSsize_t(g->size);
    PyObject *group = PyList_GET_ITEM(g->groups, PyList_GET_SIZE(g->groups) - 1);
    if (size == NULL)
        return 0;
    Py_DECREF(PyTuple_GET_ITEM(group, 2));
    PyTuple_SET_ITEM(group, 2, size); /* nobody else has the tuple yet */
    return 1;
}

static int
begin_group(Gathered *g, int kind)
{
    if (!end_group(g))
        return 0;
    PyObject *values = PyList_New(0);
    PyObject *group = values == NULL ? NULL : PyTuple_Pack(3, names[kind], values, Py_None);
    Py_XDECREF(values); /* the group has it */
    int failed = group == NULL || PyList_Append(g->groups, group) < 0;
    Py_XDECREF(group);
    g->kind = kind;
    g->size = 0;
    return !failed;
}

/* Whether the element, or the value in a list, that ends here is long, and holds more values than it may. Of an element
one brace is yet to come, and another and a comma have not been counted. */
static int
is_too_rich(const Scan *s, const Gathered *g, const unsigned char *begin, Py_ssize_t before, int is_list)
{
    return s->at - begin + !is_list >= LONG_TEXT && s->values - before + 2 * !is_list > g->most;
}

static int
add_element(Scan *s, Gathered *g)
{
    const unsigned char *begin = s->at;
    Py_ssize_t before = s->values;
    int kind = read_kind(s), is_list = kind == DIFF || kind == MODEL;
    if (kind < 0 || ((kind != g->kind || is_list) && !begin_group(g, kind)))
        return 0;
    PyObject *values = PyTuple_GET_ITEM(PyList_GET_ITEM(g->groups, PyList_GET_SIZE(g->groups) - 1), 1);
    if (is_list && !scan_char(s, '['))
        return 0;
    int is_empty = is_list && scan_char(s, ']');
    if (is_empty)
        g->room--; /* it counts as one */
    else {
        do {
            if (is_list)
                begin = s->at, before = s->values;
            Py_ssize_t size = --g->room < 0 ? -1 : add_value(s, kind, values);
            if (size < 0 || is_too_rich(s, g, begin, before, is_list))
                return 0;
            g->size += size;
        } while (is_list && scan_char(s, ','));
    }
    return g->room >= 0 && (!is_list || is_empty || scan_char(s, ']')) && scan_char(s, '}');
}

static PyObject *
split(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 5) {
        PyErr_SetString(PyExc_TypeError, "split(text, at, room, most, step)");
        return NULL;
    }
    Py_ssize_t at = PyLong_AsSsize_t(arguments[1]);
    Py_ssize_t room = PyLong_AsSsize_t(arguments[2]);
    Py_ssize_t most = PyLong_AsSsize_t(arguments[3]);
    Py_ssize_t step = PyLong_AsSsize_t(arguments[4]);
    Py_buffer text;
    if (PyErr_Occurred() || PyObject_GetBuffer(arguments[0], &text, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *found = NULL, *gathered = PyList_New(0);
    if (gathered == NULL || at < 0 || at > text.len)
        goto done;
    Scan s;
    scan_begin(&s, text.buf, text.len, at, MAX_DEPTH, PY_SSIZE_T_MAX, 0);
    Gathered g = {gathered, KINDS, 0, room < 0 ? PY_SSIZE_T_MAX : room, most < 0 ? PY_SSIZE_T_MAX : most};
    if (at == 0 && !scan_char(&s, '['))
        goto done;
    Py_ssize_t next = -1;
    if (at > 0 || !scan_char(&s, ']')) {
        for (;;) {
            if (!add_element(&s, &g))
                goto done;
            if (!scan_char(&s, ','))
                break;
            if (s.at - s.from - at >= step) {
                next = s.at - s.from;
                break;
            }
        }
        if (next < 0 && !scan_char(&s, ']'))
            goto done;
    }
    if ((next >= 0 || s.at == s.end) && end_group(&g))
        found = Py_BuildValue("On", gathered, next);
done:
    Py_XDECREF(gathered);
    PyBuffer_Release(&text);
    if (found != NULL)
        return found;
    PyErr_Clear(); /* of memory: the general code will meet it again */
    Py_RETURN_NONE;
}

/* Whether `length` bytes of a class stand together; `classes` has an x for each that is of it. */
static PyObject *
stand_together(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    Py_buffer text, classes;
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "stand_together(text, classes, length)");
        return NULL;
    }
    Py_ssize_t length = PyLong_AsSsize_t(arguments[2]);
    if (PyErr_Occurred() || PyObject_GetBuffer(arguments[0], &text, PyBUF_SIMPLE) < 0)
        return NULL;
    if (PyObject_GetBuffer(arguments[1], &classes, PyBUF_SIMPLE) < 0) {
        PyBuffer_Release(&text);
        return NULL;
    }
    int found = 0, is_wrong = classes.len != 256 || length < 1;
    const unsigned char *from = text.buf, *of = classes.buf;
    /* Up to `begin` none begins. Looking from the end of where one could be, most bytes are passed over. */
    Py_ssize_t begin = 0, known = 0;
    while (!is_wrong && !found && text.len - begin >= length) {
        Py_ssize_t at = begin + length;
        while (at > known && of[from[at - 1]] == 'x')
            at--;
        if (at == known)
            found = 1;
        else {
            known = begin + length; /* from `at` up to there, all are of the class */
            begin = at;
        }
    }
    PyBuffer_Release(&text);
    PyBuffer_Release(&classes);
    if (is_wrong) {
        PyErr_SetString(PyExc_ValueError, "256 classes, and a length");
        return NULL;
    }
    return PyBool_FromLong(found);
}

static PyMethodDef methods[] = {
    {"split", (PyCFunction)(void (*)(void))split, METH_FASTCALL, NULL},
    {"stand_together", (PyCFunction)(void (*)(void))stand_together, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "batch_text", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC
PyInit_batch_text(void)
{
    empty = PyBytes_FromStringAndSize("", 0);
    if (empty == NULL)
        return NULL;
    for (int kind = 0; kind < KINDS; kind++)
        if ((names[kind] = PyUnicode_InternFromString(texts[kind])) == NULL)
            return NULL;
    return PyModule_Create(&module);
}
