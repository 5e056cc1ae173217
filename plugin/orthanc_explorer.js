/**
 * Genu in Orthanc Explorer: on a study's page its state, and a button that scores it again.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Runs in the page of Orthanc Explorer and speaks to the same origin only; Orthanc's plugin refuses requests that
 * another site's page makes. Everything that comes from a server is set as text, never as HTML.
 */
(function() {
  'use strict';

  var SOON = 1000, LATER = 5000;  // milliseconds between two looks
  // `shown` is the number of revisions whose results the page lists; null when it was not asked yet.
  var timer = null, shown = null;

  function say(text) {
    $('#genu-state').text(text);
  }

  function address(uuid, action) {
    return '../genu/studies/' + encodeURIComponent(uuid) + (action || '');
  }

  function reason(request) {
    try {
      return JSON.parse(request.responseText).error || request.statusText;
    } catch (error) {
      return request.status ? 'status ' + request.status : 'Orthanc does not answer';
    }
  }

  /** What is still under way, and what went wrong, with the objects of the latest revision in this Orthanc. */
  function deliveries(study) {
    var latest = study.revisions[study.revisions.length - 1], pending = 0, errors = [];
    (latest ? latest.objects : []).forEach(function(object) {
      object.deliveries.forEach(function(delivery) {
        if (delivery.state === 'pending') {
          pending += 1;
        }
        if (delivery.error && delivery.state !== 'delivered') {
          errors.push(delivery.destination + ': ' + delivery.error);
        }
      });
    });
    return { pending: pending, errors: errors };
  }

  function show(uuid, study) {
    var sent = deliveries(study), text = study.summary;
    var isBusy = study.state === 'queued' || study.state === 'running' || sent.pending > 0;
    if (sent.errors.length > 0) {
      text += ' Not stored yet: ' + sent.errors[0];
    } else if (sent.pending > 0) {
      text += ' The results are being stored.';
    }
    say(text);
    $('#genu-state').attr({ 'data-state': isBusy ? 'busy' : study.state, 'data-revision': study.revisions.length });
    if (!isBusy && shown !== null && shown !== study.revisions.length && typeof RefreshStudy === 'function') {
      RefreshStudy();  // Explorer's own list of series, which has more now
    }
    if (!isBusy || shown === null) {
      shown = isBusy ? -1 : study.revisions.length;
    }
    if (isBusy || study.state === 'unknown') {
      look(uuid, isBusy ? SOON : LATER);
    }
  }

  function look(uuid, milliseconds) {
    clearTimeout(timer);
    timer = setTimeout(function() {
      ask('GET', uuid, '', function(study) {
        show(uuid, study);
      });
    }, milliseconds);
  }

  function ask(method, uuid, action, done) {
    $.ajax({ type: method, url: address(uuid, action), dataType: 'json', cache: false }).then(function(answer) {
      if (isCurrent(uuid)) {
        done(answer);
      }
    }, function(request) {
      if (isCurrent(uuid)) {
        say('Not available: ' + reason(request));
        $('#genu-state').attr('data-state', 'error');
        look(uuid, LATER);
      }
    });
  }

  function current() {
    return $.mobile.pageData ? $.mobile.pageData.uuid : undefined;
  }

  function isCurrent(uuid) {
    return $.mobile.activePage && $.mobile.activePage.attr('id') === 'study' && current() === uuid;
  }

  $('#study').live('pagebeforecreate', function() {
    var list = $('<ul>').attr({
      id: 'genu-study', 'data-role': 'listview', 'data-inset': 'true', 'data-theme': 'd', 'data-divider-theme': 'c'
    });
    var state = $('<p>').attr('id', 'genu-state').css({ 'white-space': 'normal', 'font-size': '14px' });
    var button = $('<a>').attr({ href: '#', id: 'genu-score' }).text('Score with Genu');
    list.append($('<li>').attr('data-role', 'list-divider').text('Genu'));
    list.append($('<li>').append(state));
    list.append($('<li>').attr('data-icon', 'star').append(button));
    list.insertAfter('#study-info');
  });

  $('#study').live('pageshow', function() {
    clearTimeout(timer);
    shown = null;
    say('');
    if (current()) {
      look(current(), 0);
    }
  });

  $('#study').live('pagehide', function() {
    clearTimeout(timer);
  });

  $('#genu-score').live('click', function(event) {
    var uuid = current();
    event.preventDefault();
    clearTimeout(timer);
    say('Asked for.');
    $('#genu-state').attr('data-state', 'busy');
    ask('POST', uuid, '/score', function() {
      look(uuid, SOON / 4);
    });
  });
}());
