/* Reads and writes the commonest messages without the objects in between (short_messages.py says which).

Whatever is not exactly of the form that is expected, or is wrong, is answered with None, or -1: then the general
code looks at it, which is the only one to decide what is an error. So nothing here reports what a peer did
wrong, and nothing may be taken here that the general code would refuse, or read in another way.

Only what is bounded is done: a text is read once from left to right, `at` never passes `end`, and nothing is
nested deeper than the caller says, 64 at most, which also bounds the C stack. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <datetime.h>
#include <stdint.h>
#include <string.h>

/* Without the global interpreter lock another thread may change a container that is walked through here. So its own
lock is held meanwhile; and each item, since whoever waits for a further lock lets go of this one. */
#ifdef Py_GIL_DISABLED
#define LOCK(container) Py_BEGIN_CRITICAL_SECTION(container)
#define UNLOCK() Py_END_CRITICAL_SECTION()
#define HOLD(item) Py_INCREF(item)
#define LET_GO(item) Py_DECREF(item)
#else
#define LOCK(container) {
#define UNLOCK() }
#define HOLD(item)
#define LET_GO(item)
#endif

#define MAX_DEPTH 64
#define MAX_WRITTEN 65536
#define MAX_PATH 16
#define MAX_SAFE_INTEGER 9007199254740991LL /* 2**53 - 1, as in integers.py */

/* ---- Reading ---- */

typedef struct {
    const unsigned char *at, *end;
    Py_ssize_t values; /* as decoding.Decoder counts them */
    int max_depth;
} Reader;

/* Each function returns a new reference, or NULL: what is there is not known here. An exception that is set as
well is one of memory, and is cleared by whoever turns NULL into None: the general code will meet it again. */
static PyObject *read_value(Reader *r, int depth);

static int
take(Reader *r, char c)
{
    if (r->at < r->end && *r->at == (unsigned char)c) {
        r->at++;
        return 1;
    }
    return 0;
}

static int
take_text(Reader *r, const char *text, Py_ssize_t length)
{
    if (r->end - r->at < length || memcmp(r->at, text, length) != 0)
        return 0;
    r->at += length;
    return 1;
}

#define TAKE(r, text) take_text((r), "" text, sizeof(text) - 1)

/* Text with escapes: `from` is where it begins, r->at where the first backslash is. */
static PyObject *
read_escaped(Reader *r, const unsigned char *from)
{
    const unsigned char *stop = r->at;
    while (stop < r->end && *stop != '"') {
        if (*stop < 0x20 || (*stop == '\\' && ++stop == r->end))
            return NULL;
        stop++;
    }
    if (stop >= r->end)
        return NULL;
    char *buffer = PyMem_Malloc(stop - from);
    if (buffer == NULL)
        return NULL;
    char *to = buffer;
    for (const unsigned char *p = from; p < stop; p++) {
        if (*p != '\\') {
            *to++ = (char)*p;
            continue;
        }
        p++; /* within the text: it ends in no backslash, or the quote would have been passed over */
        switch (*p) {
        case '"': case '\\': case '/': *to++ = (char)*p; break;
        case 'b': *to++ = '\b'; break;
        case 'f': *to++ = '\f'; break;
        case 'n': *to++ = '\n'; break;
        case 'r': *to++ = '\r'; break;
        case 't': *to++ = '\t'; break;
        default: /* \uXXXX, which may be half of a character; or nothing that there is */
            PyMem_Free(buffer);
            return NULL;
        }
    }
    PyObject *text = PyUnicode_DecodeUTF8(buffer, to - buffer, NULL);
    PyMem_Free(buffer);
    if (text != NULL)
        r->at = stop + 1;
    return text;
}

/* Behind the quote that begins it. */
static PyObject *
read_string(Reader *r)
{
    const unsigned char *from = r->at;
    unsigned char all = 0;
    while (r->at < r->end && *r->at != '"') {
        if (*r->at < 0x20)
            return NULL;
        if (*r->at == '\\')
            return read_escaped(r, from);
        all |= *r->at++;
    }
    if (r->at >= r->end)
        return NULL;
    Py_ssize_t length = r->at - from;
    r->at++;
    if (all >= 0x80)
        return PyUnicode_DecodeUTF8((const char *)from, length, NULL);
    PyObject *text = PyUnicode_New(length, 127);
    if (text != NULL)
        memcpy(PyUnicode_DATA(text), from, length);
    return text;
}

/* A whole number that JavaScript can hold; no other is known here. */
static int
read_integer(Reader *r, long long *value)
{
    const unsigned char *from = r->at;
    int is_negative = take(r, '-');
    const unsigned char *digits = r->at;
    long long number = 0;
    while (r->at < r->end && *r->at >= '0' && *r->at <= '9') {
        if (r->at - digits >= 16)
            goto unknown;
        number = number * 10 + (*r->at++ - '0');
    }
    Py_ssize_t count = r->at - digits;
    if (count == 0 || (*digits == '0' && (count > 1 || is_negative)) || number > MAX_SAFE_INTEGER)
        goto unknown;
    if (r->at < r->end && (*r->at == '.' || *r->at == 'e' || *r->at == 'E'))
        goto unknown;
    *value = is_negative ? -number : number;
    return 1;
unknown:
    r->at = from;
    return 0;
}

/* A number with a fraction or an exponent. */
static PyObject *
read_float(Reader *r)
{
    char buffer[40];
    Py_ssize_t length = 0;
    const unsigned char *p = r->at;
    int digits = 0, points = 0, exponents = 0;
    if (p < r->end && *p == '-')
        buffer[length++] = (char)*p++;
    if (p < r->end && *p == '0' && p + 1 < r->end && p[1] != '.' && p[1] != 'e' && p[1] != 'E')
        return NULL;
    for (; p < r->end; p++) {
        if (*p >= '0' && *p <= '9')
            digits++;
        else if (*p == '.' && digits > 0 && points == 0 && exponents == 0 && p + 1 < r->end && p[1] >= '0' && p[1] <= '9')
            points = 1;
        else if ((*p == 'e' || *p == 'E') && digits > 0 && exponents == 0) {
            exponents = 1;
            digits = 0;
            if (p + 1 < r->end && (p[1] == '+' || p[1] == '-')) {
                if (length + 2 >= (Py_ssize_t)sizeof(buffer))
                    return NULL;
                buffer[length++] = (char)*p++;
            }
        } else
            break;
        if (length + 1 >= (Py_ssize_t)sizeof(buffer))
            return NULL;
        buffer[length++] = (char)*p;
    }
    if (digits == 0 || points + exponents == 0)
        return NULL;
    buffer[length] = 0;
    double value = PyOS_string_to_double(buffer, NULL, NULL);
    if ((value == -1.0 && PyErr_Occurred()) || value - value != 0.0)
        return NULL; /* or it is infinite */
    r->at = p;
    return PyFloat_FromDouble(value);
}

/* Elements up to the bracket that ends them, behind the one that begins them. */
static PyObject *
read_elements(Reader *r, int depth)
{
    if (depth >= r->max_depth)
        return NULL;
    PyObject *list = PyList_New(0);
    if (list == NULL)
        return NULL;
    if (!take(r, ']')) {
        do {
            PyObject *value = read_value(r, depth + 1);
            if (value == NULL || PyList_Append(list, value) < 0) {
                Py_XDECREF(value);
                Py_DECREF(list);
                return NULL;
            }
            Py_DECREF(value);
        } while (take(r, ','));
        if (!take(r, ']')) {
            Py_DECREF(list);
            return NULL;
        }
    }
    r->values += 1 + PyList_GET_SIZE(list);
    return list;
}

static PyObject *
read_object(Reader *r, int depth)
{
    if (depth >= r->max_depth)
        return NULL;
    PyObject *object = PyDict_New();
    if (object == NULL)
        return NULL;
    if (!take(r, '}')) {
        do {
            PyObject *key = NULL, *value = NULL;
            if (take(r, '"') && (key = read_string(r)) != NULL && take(r, ':'))
                value = read_value(r, depth + 1);
            int failed = value == NULL || PyDict_SetItem(object, key, value) < 0;
            Py_XDECREF(key);
            Py_XDECREF(value);
            if (failed) {
                Py_DECREF(object);
                return NULL;
            }
        } while (take(r, ','));
        if (!take(r, '}')) {
            Py_DECREF(object);
            return NULL;
        }
    }
    r->values += 1 + PyDict_GET_SIZE(object);
    return object;
}

#define DAY 86400000LL /* milliseconds */

/* The date so many milliseconds after the epoch, if Python has a date for that: see dates.py. */
static PyObject *
date_of(long long milliseconds)
{
    if (milliseconds < -62135596800000LL || milliseconds > 253402300799999LL) /* years 1 to 9999 */
        return NULL;
    long long days = milliseconds / DAY, rest = milliseconds % DAY;
    if (rest < 0) {
        rest += DAY;
        days--;
    }
    /* Years begin in March here, so that the day that not all of them have is the last. Days are counted from
    1 March of year 0; 400 years have 146,097 of them, 4 years 1,461, and 5 months from March or August on 153. */
    days += 719468;
    int era = (int)(days / 146097), day = (int)(days % 146097);
    int year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
    day -= 365 * year + year / 4 - year / 100;
    int month = (5 * day + 2) / 153;
    day -= (153 * month + 2) / 5;
    month = month < 10 ? month + 3 : month - 9;
    year += 400 * era + (month <= 2);
    int seconds = (int)(rest / 1000);
    return PyDateTimeAPI->DateTime_FromDateAndTime(
        year, month, day + 1, seconds / 3600, seconds / 60 % 60, seconds % 60, (int)(rest % 1000) * 1000,
        PyDateTime_TimeZone_UTC, PyDateTimeAPI->DateTimeType);
}

/* What a character of base64 stands for; 64 for one that is none. */
static unsigned char sextets[256];

static void
fill_sextets(void)
{
    const char *alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    memset(sextets, 64, sizeof(sextets));
    for (int i = 0; i < 64; i++)
        sextets[(unsigned char)alphabet[i]] = (unsigned char)i;
}

/* Base64 without padding, up to and with its quote. */
static PyObject *
read_bytes(Reader *r)
{
    const unsigned char *from = r->at;
    while (r->at < r->end && sextets[*r->at] < 64)
        r->at++;
    Py_ssize_t length = r->at - from;
    int rest = (int)(length % 4);
    if (rest == 1 || !take(r, '"'))
        return NULL;
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, length / 4 * 3 + (rest ? rest - 1 : 0));
    if (bytes == NULL)
        return NULL;
    unsigned char *to = (unsigned char *)PyBytes_AS_STRING(bytes);
    uint32_t bits = 0;
    int held = 0;
    for (const unsigned char *p = from; p < from + length; p++) {
        bits = (bits << 6) | sextets[*p];
        held += 6;
        if (held >= 8) {
            held -= 8;
            *to++ = (unsigned char)(bits >> held);
        }
    }
    if (bits & ((1u << held) - 1)) { /* bits behind the last byte, of which others may think otherwise */
        Py_DECREF(bytes);
        return NULL;
    }
    return bytes;
}

/* Behind a bracket: an array, which is wrapped in another; or one of the expressions that are known here. */
static PyObject *
read_expression(Reader *r, int depth)
{
    if (take(r, '[')) {
        PyObject *list = read_elements(r, depth);
        if (list != NULL && !take(r, ']'))
            Py_CLEAR(list);
        return list;
    }
    if (depth >= r->max_depth)
        return NULL;
    if (TAKE(r, "\"date\",")) {
        long long milliseconds;
        if (!read_integer(r, &milliseconds) || !take(r, ']'))
            return NULL;
        r->values += 1;
        return date_of(milliseconds);
    }
    if (TAKE(r, "\"bytes\",\"")) {
        PyObject *bytes = read_bytes(r);
        if (bytes != NULL && !take(r, ']'))
            Py_CLEAR(bytes);
        r->values += 2;
        return bytes;
    }
    return NULL;
}

static PyObject *
read_value(Reader *r, int depth)
{
    if (r->at >= r->end)
        return NULL;
    switch (*r->at) {
    case '"': r->at++; return read_string(r);
    case '{': r->at++; return read_object(r, depth);
    case '[': r->at++; return read_expression(r, depth);
    case 't': return TAKE(r, "true") ? Py_NewRef(Py_True) : NULL;
    case 'f': return TAKE(r, "false") ? Py_NewRef(Py_False) : NULL;
    case 'n': return TAKE(r, "null") ? Py_NewRef(Py_None) : NULL;
    default: {
        long long number;
        if (read_integer(r, &number))
            return PyLong_FromLongLong(number);
        return read_float(r);
    }
    }
}

static PyObject *pull, *release, *resolve, *undefined; /* as long as the process */

/* ["pull",N] and ["release",N,N], as the general code would have them. */
static PyObject *
read_numbers(Reader *r, PyObject *kind, int count)
{
    long long numbers[2] = {0, 0};
    for (int i = 0; i < count; i++)
        if ((i > 0 && !take(r, ',')) || !read_integer(r, &numbers[i]))
            return NULL;
    if (!take(r, ']') || r->at != r->end)
        return NULL;
    PyObject *message = PyList_New(1 + count);
    if (message == NULL)
        return NULL;
    PyList_SET_ITEM(message, 0, Py_NewRef(kind));
    for (int i = 0; i < count; i++) {
        PyObject *number = PyLong_FromLongLong(numbers[i]);
        if (number == NULL) {
            Py_DECREF(message);
            return NULL;
        }
        PyList_SET_ITEM(message, 1 + i, number);
    }
    return message;
}

/* ["resolve",N,["undefined"]], as the general code would have it: what a call yields that is made for its effect. */
static PyObject *
read_done(Reader *r)
{
    long long number;
    if (!read_integer(r, &number) || !TAKE(r, ",[\"undefined\"]]") || r->at != r->end)
        return NULL;
    return Py_BuildValue("[OL[O]]", resolve, number, undefined);
}

/* A tuple of up to four objects, to which the references pass; NULL if one of the first or the last is NULL. */
static PyObject *
tuple_of(PyObject *first, PyObject *second, PyObject *third, PyObject *last)
{
    PyObject *items[4] = {first, second, third, last};
    int count = third == NULL ? 2 : 4;
    if (count == 2)
        items[1] = last;
    PyObject *tuple = first == NULL || last == NULL ? NULL : PyTuple_New(count);
    for (int i = 0; i < count; i++) {
        if (tuple != NULL)
            PyTuple_SET_ITEM(tuple, i, items[i]);
        else
            Py_XDECREF(items[i]);
    }
    return tuple;
}

/* ["push",["pipeline",N,["name",…],[argument,…]]] as (N, path, arguments, values). */
static PyObject *
read_call(Reader *r)
{
    long long target;
    if (!read_integer(r, &target) || !TAKE(r, ",["))
        return NULL;
    PyObject *names[MAX_PATH], *path = NULL, *arguments = NULL, *call = NULL;
    int count = 0;
    do {
        if (count == MAX_PATH || !take(r, '"') || (names[count] = read_string(r)) == NULL)
            goto done;
        count++;
    } while (take(r, ','));
    if (!TAKE(r, "],[") || (arguments = read_elements(r, 0)) == NULL || !TAKE(r, "]]") || r->at != r->end)
        goto done;
    if ((path = PyTuple_New(count)) == NULL)
        goto done;
    for (int i = 0; i < count; i++)
        PyTuple_SET_ITEM(path, i, Py_NewRef(names[i]));
    call = tuple_of(PyLong_FromLongLong(target), Py_NewRef(path), Py_NewRef(arguments), PyLong_FromSsize_t(r->values));
done:
    for (int i = 0; i < count; i++)
        Py_DECREF(names[i]);
    Py_XDECREF(path);
    Py_XDECREF(arguments);
    return call;
}

static PyObject *
read_message(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "read(frame, max_depth)");
        return NULL;
    }
    long max_depth = PyLong_AsLong(arguments[1]);
    if (max_depth == -1 && PyErr_Occurred())
        return NULL;
    PyObject *message = NULL;
    if (PyBytes_CheckExact(arguments[0])) {
        const unsigned char *text = (const unsigned char *)PyBytes_AS_STRING(arguments[0]);
        Reader r = {text, text + PyBytes_GET_SIZE(arguments[0]), 1, (int)(max_depth < MAX_DEPTH ? max_depth : MAX_DEPTH)};
        if (TAKE(&r, "[\"push\",[\"pipeline\","))
            message = read_call(&r);
        else if (TAKE(&r, "[\"pull\","))
            message = read_numbers(&r, pull, 1);
        else if (TAKE(&r, "[\"release\","))
            message = read_numbers(&r, release, 2);
        else if (TAKE(&r, "[\"resolve\","))
            message = read_done(&r);
    }
    if (message != NULL)
        return message;
    PyErr_Clear();
    Py_RETURN_NONE;
}

/* ---- Writing ---- */

typedef struct {
    char *text;
    Py_ssize_t length, room;
    Py_ssize_t values; /* as encoding.Encoder counts them */
    int max_depth;
    char first[1024];
} Writer;

static int
make_room(Writer *w, Py_ssize_t more)
{
    if (more <= w->room - w->length)
        return 1;
    if (more > MAX_WRITTEN - w->length)
        return 0;
    Py_ssize_t room = 2 * (w->length + more);
    if (room > MAX_WRITTEN)
        room = MAX_WRITTEN;
    char *text = w->text == w->first ? PyMem_Malloc(room) : PyMem_Realloc(w->text, room);
    if (text == NULL)
        return 0;
    if (w->text == w->first)
        memcpy(text, w->first, w->length);
    w->text = text;
    w->room = room;
    return 1;
}

static int
put(Writer *w, const char *text, Py_ssize_t length)
{
    if (!make_room(w, length))
        return 0;
    memcpy(w->text + w->length, text, length);
    w->length += length;
    return 1;
}

#define PUT(w, text) put((w), "" text, sizeof(text) - 1)

static inline int
put_char(Writer *w, char c)
{
    if (w->length == w->room && !make_room(w, 1))
        return 0;
    w->text[w->length++] = c;
    return 1;
}

static int
put_integer(Writer *w, long long number)
{
    char digits[24], *to = digits + sizeof(digits);
    unsigned long long left = number < 0 ? 0ULL - (unsigned long long)number : (unsigned long long)number;
    do {
        *--to = (char)('0' + left % 10);
        left /= 10;
    } while (left);
    if (number < 0)
        *--to = '-';
    return put(w, to, digits + sizeof(digits) - to);
}

static int
put_string(Writer *w, PyObject *string)
{
    const char *text;
    Py_ssize_t length;
    if (PyUnicode_IS_COMPACT_ASCII(string)) {
        text = PyUnicode_DATA(string);
        length = PyUnicode_GET_LENGTH(string);
    } else if ((text = PyUnicode_AsUTF8AndSize(string, &length)) == NULL)
        return 0; /* half of a surrogate pair */
    if (length > MAX_WRITTEN || !make_room(w, 2 * length + 2))
        return 0;
    char *to = w->text + w->length;
    *to++ = '"';
    for (Py_ssize_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c >= 0x20 && c != '"' && c != '\\') {
            *to++ = (char)c;
            continue;
        }
        *to++ = '\\';
        switch (c) {
        case '"': case '\\': *to++ = (char)c; break;
        case '\b': *to++ = 'b'; break;
        case '\f': *to++ = 'f'; break;
        case '\n': *to++ = 'n'; break;
        case '\r': *to++ = 'r'; break;
        case '\t': *to++ = 't'; break;
        default: return 0;
        }
    }
    *to++ = '"';
    w->length = to - w->text;
    return 1;
}

static int write_value(Writer *w, PyObject *value, int depth);

static int
write_items(Writer *w, PyObject *dict, int depth)
{
    PyObject *key, *item;
    Py_ssize_t place = 0;
    int is_first = 1, is_written = 1;
    LOCK(dict);
    while (is_written && PyDict_Next(dict, &place, &key, &item)) {
        HOLD(key);
        HOLD(item);
        is_written = PyUnicode_CheckExact(key) && (is_first || put_char(w, ',')) && put_string(w, key)
            && put_char(w, ':') && write_value(w, item, depth + 1);
        w->values += 1;
        is_first = 0;
        LET_GO(key);
        LET_GO(item);
    }
    UNLOCK();
    return is_written;
}

static int
write_elements(Writer *w, PyObject *list, int depth)
{
    int is_written = 1;
    LOCK(list);
    for (Py_ssize_t i = 0; is_written && i < PyList_GET_SIZE(list); i++) {
        PyObject *item = PyList_GET_ITEM(list, i);
        HOLD(item);
        is_written = (i == 0 || put_char(w, ',')) && write_value(w, item, depth + 1);
        w->values += 1;
        LET_GO(item);
    }
    UNLOCK();
    return is_written;
}

static int
write_value(Writer *w, PyObject *value, int depth)
{
    if (depth >= w->max_depth)
        return 0;
    if (PyUnicode_CheckExact(value))
        return put_string(w, value);
    if (value == Py_None)
        return PUT(w, "null");
    if (value == Py_True)
        return PUT(w, "true");
    if (value == Py_False)
        return PUT(w, "false");
    if (PyLong_CheckExact(value)) {
        int overflow;
        long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
        if (overflow || number > MAX_SAFE_INTEGER || number < -MAX_SAFE_INTEGER)
            return 0;
        return put_integer(w, number);
    }
    if (PyDict_CheckExact(value)) {
        w->values += 1;
        return put_char(w, '{') && write_items(w, value, depth) && put_char(w, '}');
    }
    if (PyList_CheckExact(value)) {
        w->values += 1;
        return PUT(w, "[[") && write_elements(w, value, depth) && PUT(w, "]]");
    }
    return 0;
}

static PyObject *
write_result(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "write(export_id, value, max_depth)");
        return NULL;
    }
    long max_depth = PyLong_AsLong(arguments[2]);
    long long export_id = PyLong_AsLongLong(arguments[0]);
    if (PyErr_Occurred())
        return NULL;
    Writer w;
    w.text = w.first;
    w.room = sizeof(w.first);
    w.length = 0;
    w.values = 1;
    w.max_depth = (int)(max_depth < MAX_DEPTH ? max_depth : MAX_DEPTH);
    PyObject *written = NULL;
    if (PUT(&w, "[\"resolve\",") && put_integer(&w, export_id) && put_char(&w, ',') && write_value(&w, arguments[1], 0) && put_char(&w, ']'))
        written = tuple_of(PyBytes_FromStringAndSize(w.text, w.length), NULL, NULL, PyLong_FromSsize_t(w.values));
    if (w.text != w.first)
        PyMem_Free(w.text);
    if (written != NULL)
        return written;
    PyErr_Clear();
    Py_RETURN_NONE;
}

/* ---- Counting ---- */

static Py_ssize_t count_within(PyObject *value, int depth);

static Py_ssize_t
count_items(PyObject *dict, int depth)
{
    PyObject *key, *item;
    Py_ssize_t place = 0, values = 0;
    LOCK(dict);
    while (values >= 0 && PyDict_Next(dict, &place, &key, &item)) {
        HOLD(item);
        Py_ssize_t more = count_within(item, depth + 1);
        values = more < 0 ? -1 : values + 1 + more;
        LET_GO(item);
    }
    UNLOCK();
    return values;
}

static Py_ssize_t
count_elements(PyObject *list, int depth)
{
    Py_ssize_t values = 0;
    LOCK(list);
    for (Py_ssize_t i = 0; values >= 0 && i < PyList_GET_SIZE(list); i++) {
        PyObject *item = PyList_GET_ITEM(list, i);
        HOLD(item);
        Py_ssize_t more = count_within(item, depth + 1);
        values = more < 0 ? -1 : values + 1 + more;
        LET_GO(item);
    }
    UNLOCK();
    return values;
}

/* How many values are within a container, or -1; values of plain types alone, as memory_budget.is_leaf has them. */
static Py_ssize_t
count_within(PyObject *value, int depth)
{
    if (PyUnicode_CheckExact(value) || PyLong_CheckExact(value) || value == Py_None || PyBool_Check(value)
        || PyFloat_CheckExact(value) || PyBytes_CheckExact(value))
        return 0;
    if (depth >= MAX_DEPTH)
        return -1;
    if (PyDict_CheckExact(value))
        return count_items(value, depth);
    return PyList_CheckExact(value) ? count_elements(value, depth) : -1;
}

static PyObject *
count_values(PyObject *Py_UNUSED(module), PyObject *value)
{
    Py_ssize_t values = count_within(value, 0);
    return PyLong_FromSsize_t(values < 0 ? -1 : values + 1);
}

static PyMethodDef methods[] = {
    {"read", (PyCFunction)(void (*)(void))read_message, METH_FASTCALL, NULL},
    {"write", (PyCFunction)(void (*)(void))write_result, METH_FASTCALL, NULL},
    {"count", count_values, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "short_messages", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC
PyInit_short_messages(void)
{
    fill_sextets();
    PyDateTime_IMPORT;
    if (PyDateTimeAPI == NULL)
        return NULL;
    pull = PyUnicode_InternFromString("pull");
    release = PyUnicode_InternFromString("release");
    resolve = PyUnicode_InternFromString("resolve");
    undefined = PyUnicode_InternFromString("undefined");
    if (pull == NULL || release == NULL || resolve == NULL || undefined == NULL)
        return NULL;
    PyObject *made = PyModule_Create(&module);
#ifdef Py_GIL_DISABLED
    if (made != NULL)
        PyUnstable_Module_SetGIL(made, Py_MOD_GIL_NOT_USED);
#endif
    return made;
}
