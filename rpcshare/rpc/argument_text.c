/* Finds the text of one argument of a long call (argument_text.py says how it is used).

What is not of the usual form (json_scan.h) is answered with None: the general code looks at it. */

#include "../json_scan.h"

#define MAX_VALUES 500000 /* as many as Limits.values has: what has more is refused, and is not to take long before */

/* Passes over any value, as far as brackets and strings tell: what is wrong with it is found by who decodes it. */
static int
skip_value(Scan *s)
{
    Py_ssize_t depth = 0;
    while (s->at < s->end) {
        switch (*s->at) {
        case '"':
            for (s->at++; s->at < s->end && *s->at != '"'; s->at++)
                if (*s->at == '\\')
                    s->at++;
            if (s->at >= s->end)
                return 0;
            break;
        case '[': case '{':
            depth++;
            break;
        case ']': case '}':
            if (depth == 0)
                return 1;
            depth--;
            break;
        case ',':
            if (depth == 0)
                return 1;
        }
        s->at++;
    }
    return 0;
}

/* The text of the value from `begin` to `end` without the brackets in `s`, but for the first and the last of an array,
which are not within. It is a view of the frame if there are no others. */
static PyObject *
text_of(Scan *s, PyObject *frame, const unsigned char *begin, const unsigned char *end)
{
    size_t first = 0, behind = s->bracket_count;
    if (*begin == '[') {
        begin++, end--;
        first++, behind--;
    }
    if (first == behind) {
        PyObject *whole = PyMemoryView_FromObject(frame);
        PyObject *view = whole == NULL ? NULL : PySequence_GetSlice(whole, begin - s->from, end - s->from);
        Py_XDECREF(whole);
        return view;
    }
    PyObject *text = PyBytes_FromStringAndSize(NULL, end - begin - (Py_ssize_t)(behind - first));
    if (text == NULL)
        return NULL;
    char *to = PyBytes_AS_STRING(text);
    for (size_t i = first; i <= behind; i++) {
        const unsigned char *stop = i < behind ? s->from + s->brackets[i] : end;
        memcpy(to, begin, stop - begin);
        to += stop - begin;
        begin = stop + 1;
    }
    return text;
}

static PyObject *
find_argument(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    PyObject *frame = count == 4 ? arguments[0] : NULL;
    if (frame == NULL || !PyBytes_Check(frame)) {
        PyErr_SetString(PyExc_TypeError, "find(frame, at, index, max_depth)");
        return NULL;
    }
    Py_ssize_t at = PyLong_AsSsize_t(arguments[1]);
    Py_ssize_t index = PyLong_AsSsize_t(arguments[2]);
    long max_depth = PyLong_AsLong(arguments[3]);
    if (PyErr_Occurred())
        return NULL;
    if (at < 0 || at > PyBytes_GET_SIZE(frame) || PyBytes_GET_SIZE(frame) > UINT32_MAX)
        Py_RETURN_NONE;
    Scan s;
    scan_begin(&s, PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame), at, max_depth, MAX_VALUES, 1);
    PyObject *found = NULL;
    for (; index > 0; index--)
        if (!skip_value(&s) || !scan_char(&s, ','))
            goto done;
    if (s.at >= s.end || (*s.at != '[' && *s.at != '{'))
        goto done;
    const unsigned char *begin = s.at;
    /* The arguments are an array at depth 0. */
    if (!scan_value(&s, 1) || s.at >= s.end || (*s.at != ',' && *s.at != ']'))
        goto done;
    PyObject *text = text_of(&s, frame, begin, s.at);
    if (text != NULL)
        found = Py_BuildValue("nnNn", begin - s.from, s.at - s.from, text, s.values);
done:
    PyMem_Free(s.brackets);
    if (found != NULL)
        return found;
    PyErr_Clear(); /* of memory: the general code will meet it again */
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"find", (PyCFunction)(void (*)(void))find_argument, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "argument_text", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC
PyInit_argument_text(void)
{
    return PyModule_Create(&module);
}
