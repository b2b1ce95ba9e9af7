// The pair code of a request as the relay reads it: decoded, and the first one if there are several. nginx's own $arg_pair
// is as it was sent, so `%41` and `A` would be two codes.
function code(request) {
    const codes = request.args.pair;
    return Array.isArray(codes) ? codes[0] : codes;
}

export default { code };
