/* Looks through JSON text of the usual form: what jsontext.py would write again byte for byte, once it has decoded it.

Whatever is not of that form, or is wrong, is answered with 0: then the general code looks at it, which is the only one
to decide what is an error. Usual text has no white space, no name twice in one object, no escape that is not needed, and
numbers as JavaScript prints them. Half of a surrogate pair is not usual, nor is a number beyond 2**53.

A text is read once from left to right, `at` never passes `end`, and nothing is nested deeper than `max_depth`, which
also bounds the C stack. An object of many names is unusual, since each is compared with those before it. */

#ifndef RPCSHARE_JSON_SCAN_H
#define RPCSHARE_JSON_SCAN_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define SCAN_DEPTH 256
#define SCAN_NAMES 32        /* of one object */
#define SCAN_OPEN_NAMES 1024 /* of one object and all around it */
#define SCAN_DECIMALS 10000  /* of 16 digits or more, each of which takes a hundred times as long as another number */

typedef struct {
    const unsigned char *at;
    Py_ssize_t length;
} Span;

typedef struct {
    const unsigned char *from, *at, *end;
    Py_ssize_t values, most; /* as JSONCodec.count() counts them: commas and opening brackets; how many may be */
    int max_depth;
    /* On the wire an array is within another. If `wraps` is set, `brackets` are those to be left out, in order. */
    int wraps;
    uint32_t *brackets;
    size_t bracket_count, bracket_room;
    int decimals;
    int open_names;
    Span names[SCAN_OPEN_NAMES];
} Scan;

/* A member that is looked for by its name, with the quotes around it; `value` has no length if it is not there. */
typedef struct {
    const char *name;
    Py_ssize_t length;
    Span value;
} Member;

static int scan_value(Scan *s, int depth);

static inline void
scan_begin(Scan *s, const void *text, Py_ssize_t length, Py_ssize_t at, long max_depth, Py_ssize_t most, int wraps)
{
    s->from = text;
    s->at = s->from + at;
    s->end = s->from + length;
    s->values = 0;
    s->most = most;
    s->max_depth = (int)(max_depth < SCAN_DEPTH ? max_depth : SCAN_DEPTH);
    s->wraps = wraps;
    s->brackets = NULL;
    s->bracket_count = s->bracket_room = 0;
    s->decimals = s->open_names = 0;
}

static inline int
scan_char(Scan *s, char c)
{
    if (s->at < s->end && *s->at == (unsigned char)c) {
        s->at++;
        return 1;
    }
    return 0;
}

static inline int
scan_text(Scan *s, const char *text, Py_ssize_t length)
{
    if (s->end - s->at < length || memcmp(s->at, text, length) != 0)
        return 0;
    s->at += length;
    return 1;
}

#define SCAN_TEXT(s, text) scan_text((s), "" text, sizeof(text) - 1)

/* Passes over characters of a string that stand for themselves, eight at a time. */
static inline void
scan_plain(Scan *s)
{
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    const uint64_t ones = 0x0101010101010101ULL, highs = ones * 0x80;
    while (s->end - s->at >= 8) {
        uint64_t eight;
        memcpy(&eight, s->at, 8);
        /* The lowest bit that is set is that of a byte below 0x20 or above 0x7f, of a quote or of a backslash:
        a subtraction borrows only from bytes behind such a one. */
        uint64_t found = (eight - ones * 0x20) | ((eight ^ (ones * '"')) - ones) | ((eight ^ (ones * '\\')) - ones);
        found = (found | eight) & highs;
        if (found) {
            s->at += __builtin_ctzll(found) >> 3;
            return;
        }
        s->at += 8;
    }
#endif
    while (s->at < s->end && *s->at >= 0x20 && *s->at < 0x80 && *s->at != '"' && *s->at != '\\')
        s->at++;
}

static inline int
is_continuation(unsigned char c)
{
    return (c & 0xC0) == 0x80;
}

/* Passes over one character of more than one byte (RFC 3629). */
static inline int
scan_character(Scan *s)
{
    const unsigned char *p = s->at;
    Py_ssize_t left = s->end - p;
    if (p[0] >= 0xC2 && p[0] < 0xE0 && left >= 2 && is_continuation(p[1])) {
        s->at += 2;
        return 1;
    }
    if (p[0] >= 0xE0 && p[0] < 0xF0 && left >= 3 && is_continuation(p[1]) && is_continuation(p[2])) {
        if ((p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] >= 0xA0))
            return 0;
        s->at += 3;
        return 1;
    }
    if (p[0] >= 0xF0 && p[0] < 0xF5 && left >= 4 && is_continuation(p[1]) && is_continuation(p[2]) && is_continuation(p[3])) {
        if ((p[0] == 0xF0 && p[1] < 0x90) || (p[0] == 0xF4 && p[1] >= 0x90))
            return 0;
        s->at += 4;
        return 1;
    }
    return 0;
}

/* Passes over an escape, if it is the one with which its character is written. */
static inline int
scan_escape(Scan *s)
{
    if (s->end - s->at < 2)
        return 0;
    switch (s->at[1]) {
    case '"': case '\\': case 'b': case 'f': case 'n': case 'r': case 't':
        s->at += 2;
        return 1;
    case 'u': {
        const unsigned char *p = s->at;
        if (s->end - p < 6 || p[2] != '0' || p[3] != '0' || (p[4] != '0' && p[4] != '1'))
            return 0;
        if (!((p[5] >= '0' && p[5] <= '9') || (p[5] >= 'a' && p[5] <= 'f')))
            return 0;
        if (p[4] == '0' && memchr("89acd", p[5], 5) != NULL) /* \b \t \n \f \r */
            return 0;
        s->at += 6;
        return 1;
    }
    default:
        return 0;
    }
}

/* A string, behind the quote that begins it. */
static inline int
scan_string(Scan *s)
{
    for (;;) {
        scan_plain(s);
        if (s->at >= s->end)
            return 0;
        unsigned char c = *s->at;
        if (c == '"') {
            s->at++;
            return 1;
        }
        if (c == '\\') {
            if (!scan_escape(s))
                return 0;
        } else if (c < 0x20 || !scan_character(s))
            return 0;
    }
}

/* Whether a decimal of 16 or 17 digits is the shortest that stands for its number. */
static inline int
is_shortest(const unsigned char *from, Py_ssize_t length)
{
    char text[40];
    if (length >= (Py_ssize_t)sizeof(text))
        return 0;
    memcpy(text, from, length);
    text[length] = 0;
    double value = PyOS_string_to_double(text, NULL, NULL);
    char *shortest = value == -1.0 && PyErr_Occurred() ? NULL : PyOS_double_to_string(value, 'r', 0, 0, NULL);
    int same = shortest != NULL && strcmp(shortest, text) == 0;
    PyMem_Free(shortest);
    PyErr_Clear();
    return same;
}

static inline int
scan_number(Scan *s)
{
    const unsigned char *from = s->at, *p = from, *end = s->end;
    if (p < end && *p == '-')
        p++;
    const unsigned char *digits = p;
    while (p < end && *p >= '0' && *p <= '9')
        p++;
    Py_ssize_t whole = p - digits;
    if (whole == 0 || whole > 16 || (*digits == '0' && whole > 1))
        return 0;
    if (p < end && *p == '.') {
        if (whole > 15)
            return 0;
        const unsigned char *fraction = ++p;
        while (p < end && *p >= '0' && *p <= '9')
            p++;
        Py_ssize_t length = p - fraction, zeros = 0;
        if (length == 0 || (length > 1 && p[-1] == '0'))
            return 0;
        if (*digits == '0') {
            while (zeros < length && fraction[zeros] == '0')
                zeros++;
            if (zeros > 3 || (zeros == length && zeros > 1)) /* then it has an exponent */
                return 0;
            whole = 0;
        }
        if (whole + length - zeros > 15 && (++s->decimals > SCAN_DECIMALS || !is_shortest(from, p - from)))
            return 0;
    } else if ((*digits == '0' && digits > from) || (whole == 16 && memcmp(digits, "9007199254740991", 16) > 0))
        return 0; /* -0, or beyond 2**53 - 1 */
    if (p < end && (*p == 'e' || *p == 'E'))
        return 0;
    s->at = p;
    return 1;
}

static inline int
leave_bracket_out(Scan *s, const unsigned char *bracket)
{
    if (s->bracket_count == s->bracket_room) {
        size_t room = s->bracket_room ? 2 * s->bracket_room : 64;
        uint32_t *brackets = PyMem_Realloc(s->brackets, room * sizeof(uint32_t));
        if (brackets == NULL)
            return 0;
        s->brackets = brackets;
        s->bracket_room = room;
    }
    s->brackets[s->bracket_count++] = (uint32_t)(bracket - s->from);
    return 1;
}

/* An array, behind the bracket that begins it. */
static inline int
scan_array(Scan *s, int depth)
{
    if (depth >= s->max_depth)
        return 0;
    s->values++;
    if (s->wraps) {
        if (!leave_bracket_out(s, s->at - 1) || !scan_char(s, '['))
            return 0;
        s->values++;
    }
    if (!scan_char(s, ']')) {
        for (;;) {
            if (!scan_value(s, depth + 1))
                return 0;
            if (!scan_char(s, ','))
                break;
            if (++s->values > s->most)
                return 0;
        }
        if (!scan_char(s, ']'))
            return 0;
    }
    return !s->wraps || (scan_char(s, ']') && leave_bracket_out(s, s->at - 1));
}

/* An object, behind the brace that begins it; the values of `wanted` members are noted. */
static inline int
scan_object(Scan *s, int depth, Member *wanted, int count)
{
    if (depth >= s->max_depth)
        return 0;
    s->values++;
    if (scan_char(s, '}'))
        return 1;
    int first = s->open_names;
    for (;;) {
        if (s->open_names == SCAN_OPEN_NAMES || s->open_names - first == SCAN_NAMES || !scan_char(s, '"'))
            return 0;
        Span name = {s->at - 1, 0};
        if (!scan_string(s))
            return 0;
        name.length = s->at - name.at;
        for (int i = first; i < s->open_names; i++)
            if (s->names[i].length == name.length && memcmp(s->names[i].at, name.at, name.length) == 0)
                return 0;
        s->names[s->open_names++] = name;
        if (!scan_char(s, ':'))
            return 0;
        const unsigned char *value = s->at;
        if (!scan_value(s, depth + 1))
            return 0;
        for (int i = 0; i < count; i++)
            if (wanted[i].length == name.length && memcmp(wanted[i].name, name.at, name.length) == 0) {
                wanted[i].value.at = value;
                wanted[i].value.length = s->at - value;
            }
        if (!scan_char(s, ','))
            break;
        if (++s->values > s->most)
            return 0;
    }
    s->open_names = first;
    return scan_char(s, '}');
}

static int
scan_value(Scan *s, int depth)
{
    if (s->at >= s->end)
        return 0;
    switch (*s->at) {
    case '"': s->at++; return scan_string(s);
    case '{': s->at++; return scan_object(s, depth, NULL, 0);
    case '[': s->at++; return scan_array(s, depth);
    case 't': return SCAN_TEXT(s, "true");
    case 'f': return SCAN_TEXT(s, "false");
    case 'n': return SCAN_TEXT(s, "null");
    default: return scan_number(s);
    }
}

#endif
